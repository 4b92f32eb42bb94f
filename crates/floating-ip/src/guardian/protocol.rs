//! What node and guardian say: frames of a length and a protobuf message.

use super::Holding;
use std::net::SocketAddr;
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Incarnation, InterfaceName, Token};

/// The largest frame, in bytes. Frames hold a name, a few addresses and numbers.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;

/// All that the guardian ever says, once for each line: the process is watched, and noted for the next guardian.
pub(super) const WATCHED: u8 = 1;

/// A frame of the node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame {
    /// Who it is. First on every connection.
    Hello { incarnation: Incarnation },
    /// It holds an address until then.
    Holding { holding: Holding, until: BootTime, slack: Duration },
    /// It has let an address go.
    Released { ip: FloatingIpName, token: Token },
    /// It lives.
    Alive,
    /// On this line it has now said everything that it holds.
    Complete,
}

/// A frame that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame makes no sense")]
pub struct BadFrame;

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(string, tag = "3")]
    ip: String,
    #[prost(string, repeated, tag = "4")]
    addresses: Vec<String>,
    #[prost(uint64, tag = "5")]
    generation: u64,
    #[prost(uint64, tag = "6")]
    epoch: u64,
    #[prost(uint64, tag = "7")]
    until_nanos: u64,
    #[prost(uint64, tag = "8")]
    slack_nanos: u64,
    /// Empty: on none.
    #[prost(string, tag = "9")]
    interface: String,
}

const HELLO: u32 = 1;
const HOLDING: u32 = 2;
const RELEASED: u32 = 3;
const ALIVE: u32 = 4;
const COMPLETE: u32 = 5;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The frame with its length in front.
pub(super) fn encode(frame: &Frame) -> Vec<u8> {
    use prost::Message;
    let wire = match frame {
        Frame::Hello { incarnation } => Wire { kind: HELLO, incarnation: incarnation.0, ..Wire::default() },
        Frame::Holding { holding, until, slack } => Wire {
            kind: HOLDING,
            ip: holding.ip.to_string(),
            addresses: holding.addresses.iter().map(ToString::to_string).collect(),
            generation: holding.token.generation.0,
            epoch: holding.token.epoch.0,
            until_nanos: nanos(until.0),
            slack_nanos: nanos(*slack),
            interface: holding.interface.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Wire::default()
        },
        Frame::Released { ip, token } => Wire {
            kind: RELEASED,
            ip: ip.to_string(),
            generation: token.generation.0,
            epoch: token.epoch.0,
            ..Wire::default()
        },
        Frame::Alive => Wire { kind: ALIVE, ..Wire::default() },
        Frame::Complete => Wire { kind: COMPLETE, ..Wire::default() },
    };
    let body = wire.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

/// Takes one whole frame off the front of `buffer`; none if there is not enough yet.
pub(super) fn decode(buffer: &mut Vec<u8>) -> Result<Option<Frame>, BadFrame> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(BadFrame);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let frame = frame(body)?;
    buffer.drain(..4 + length);
    Ok(Some(frame))
}

fn frame(body: &[u8]) -> Result<Frame, BadFrame> {
    use prost::Message;
    let wire = Wire::decode(body).map_err(|_| BadFrame)?;
    let token = Token::new(wire.generation, wire.epoch);
    Ok(match wire.kind {
        HELLO => Frame::Hello { incarnation: Incarnation(wire.incarnation) },
        HOLDING => {
            let addresses = wire.addresses.iter().map(|address| address.parse::<SocketAddr>());
            let addresses = addresses.collect::<Result<_, _>>().map_err(|_| BadFrame)?;
            let ip = FloatingIpName::new(wire.ip).map_err(|_| BadFrame)?;
            let interface = Some(wire.interface).filter(|interface| !interface.is_empty());
            let interface = interface.map(InterfaceName::new).transpose().map_err(|_| BadFrame)?;
            Frame::Holding {
                holding: Holding { ip, addresses, interface, token },
                until: BootTime(Duration::from_nanos(wire.until_nanos)),
                slack: Duration::from_nanos(wire.slack_nanos),
            }
        }
        RELEASED => Frame::Released { ip: FloatingIpName::new(wire.ip).map_err(|_| BadFrame)?, token },
        ALIVE => Frame::Alive,
        COMPLETE => Frame::Complete,
        _ => return Err(BadFrame),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_in_pieces() {
        let holding = Holding {
            ip: FloatingIpName::new("public").unwrap(),
            addresses: vec!["127.0.0.10:8080".parse().unwrap(), "[::1]:80".parse().unwrap()],
            interface: None,
            token: Token::new(1, 7),
        };
        let frames = [
            Frame::Hello { incarnation: Incarnation(9) },
            Frame::Holding {
                holding,
                until: BootTime(Duration::from_nanos(123_456_789)),
                slack: Duration::from_millis(20),
            },
            Frame::Released { ip: FloatingIpName::new("public").unwrap(), token: Token::new(1, 7) },
            Frame::Alive,
            Frame::Complete,
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let (mut buffer, mut read) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                read.push(frame);
            }
        }
        assert_eq!(read, frames);
        assert!(buffer.is_empty());
        assert_eq!(decode(&mut vec![0xff; 8]), Err(BadFrame));
    }

    fn every_kind() -> Vec<Vec<u8>> {
        let ip = FloatingIpName::new("public").unwrap();
        let addresses = vec!["127.0.0.10:80".parse().unwrap(), "[::1]:443".parse().unwrap()];
        let token = Token::new(3, 7);
        let interface = Some(InterfaceName::new("eth0").unwrap());
        let holding = Holding { ip: ip.clone(), addresses, interface, token };
        let (until, slack) = (BootTime(Duration::from_secs(1_000)), Duration::from_millis(20));
        let frames = [
            Frame::Hello { incarnation: Incarnation(9) },
            Frame::Holding { holding, until, slack },
            Frame::Released { ip, token },
            Frame::Alive,
            Frame::Complete,
        ];
        frames.iter().map(encode).collect()
    }

    proptest::proptest! {
        #![proptest_config(twinsite_fuzz::config())]

        /// Whatever comes: an error, or frames that are written and read the same again, and nothing is read twice.
        #[test]
        fn fuzz_guardian_frames(bytes in twinsite_fuzz::mutated(every_kind())) {
            let mut left = bytes;
            loop {
                let before = left.len();
                let Ok(Some(frame)) = decode(&mut left) else { break };
                proptest::prop_assert!(left.len() < before);
                proptest::prop_assert_eq!(decode(&mut encode(&frame)), Ok(Some(frame)));
            }
        }
    }
}
