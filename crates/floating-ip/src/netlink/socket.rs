//! A netlink socket: one question after the other, each answered before the next.
//!
//! The kernel works a request off within the `sendmsg` that brings it, so its whole answer waits to be read when that
//! returns; nothing here blocks on another process.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use std::io;

/// Messages begin at multiples of this, in bytes (`NLMSG_ALIGNTO` in `include/uapi/linux/netlink.h`).
const ALIGNMENT: usize = 4;

/// A line to one subsystem of the kernel.
pub(super) struct Line {
    socket: Socket,
    sequence: u32,
}

impl Line {
    /// Opens it; `protocol` is one of `netlink_sys::protocols`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change and waits for the kernel's word that it is done.
    pub(super) fn change<M>(&mut self, message: M, flags: u16) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send([(message, NLM_F_REQUEST | NLM_F_ACK | flags)])?;
        self.answers::<M>().map(drop)
    }

    /// Asks for one thing.
    pub(super) fn get<M>(&mut self, message: M) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send([(message, NLM_F_REQUEST | NLM_F_ACK)])?;
        self.answers()
    }

    /// Asks for all things of a kind.
    pub(super) fn list<M>(&mut self, message: M) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send([(message, NLM_F_REQUEST | NLM_F_DUMP)])?;
        self.answers()
    }

    /// Hands over several messages that are carried out together or not at all.
    pub(super) fn transact<M>(&mut self, messages: impl IntoIterator<Item = (M, u16)>) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(messages)?;
        self.answers::<M>().map(drop)
    }

    fn send<M: NetlinkSerializable>(
        &mut self,
        messages: impl IntoIterator<Item = (M, u16)>,
    ) -> io::Result<()> {
        // What an earlier question left unread is not an answer to this one.
        while self.receive()?.is_some() {}
        let mut bytes = Vec::new();
        for (message, flags) in messages {
            self.sequence = self.sequence.wrapping_add(1);
            let payload = NetlinkPayload::InnerMessage(message);
            let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
            message.header.flags = flags;
            message.header.sequence_number = self.sequence;
            message.finalize();
            let begin = bytes.len();
            bytes.resize(begin + message.buffer_len().next_multiple_of(ALIGNMENT), 0);
            message.serialize(&mut bytes[begin..]);
        }
        let sent = self.socket.send(&bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// All that the kernel has to say, up to its word that this is all.
    fn answers<M: NetlinkDeserializable>(&mut self) -> io::Result<Vec<M>> {
        let mut found = Vec::new();
        let mut failed = None;
        let mut over = false;
        while let Some(datagram) = self.receive()? {
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(invalid)?;
                let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(done) if done.code < 0 => failed = failed.or(Some(done.code)),
                    NetlinkPayload::Done(_) => over = true,
                    NetlinkPayload::Error(error) => match error.code {
                        Some(code) => failed = failed.or(Some(code.get())),
                        None => over = true,
                    },
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel's answer was lost"));
                    }
                    _ => {}
                }
            }
        }
        match failed {
            Some(code) => Err(io::Error::from_raw_os_error(code.abs())),
            None if over => Ok(found),
            None => Err(io::Error::other("the kernel did not say that it is done")),
        }
    }

    fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        match self.socket.recv_from_full() {
            Ok((datagram, _)) => Ok(Some(datagram)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the kernel said this.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
