//! Where WebSocket frames end (RFC 6455 section 5.2): a close can be put in only between two of them.

/// The close frame of a server that goes away: status 1001 (RFC 6455 section 7.4.1).
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The close frame of a service that is about to be back elsewhere: status 1012, "Service Restart" (IANA's registry of
/// WebSocket close codes).
pub(crate) const SERVICE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// Follows a stream of frames without looking into them.
#[derive(Debug, Default)]
pub(crate) struct FrameBoundary {
    /// What is known of the head being read.
    head: [u8; 14],
    head_read: usize,
    payload_left: u64,
}

impl FrameBoundary {
    /// Takes the bytes that follow.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped =
                    usize::try_from(self.payload_left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.head_read] = bytes[0];
            self.head_read += 1;
            bytes = &bytes[1..];
            if self.head_read == self.head_length() {
                self.payload_left = self.payload_length();
                self.head_read = 0;
            }
        }
    }

    /// Whether the last frame is complete.
    pub(crate) const fn is_between_frames(&self) -> bool {
        self.head_read == 0 && self.payload_left == 0
    }

    /// How long the head is, as far as can be told: at most 14 bytes.
    fn head_length(&self) -> usize {
        if self.head_read < 2 {
            return 2;
        }
        let extended = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => self.head[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..=125 => bytes.push(mask_bit | u8::try_from(length).unwrap()),
            126..=0xffff => {
                bytes.push(mask_bit | 0x7e);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
        bytes.resize(bytes.len() + length, 0x5a);
        bytes
    }

    proptest! {
        #[test]
        fn boundaries_are_exactly_where_frames_end(
            frames in prop::collection::vec((prop_oneof![0_usize..200, Just(126), Just(65_535), Just(65_536)], any::<bool>()), 1..6),
            cut in 1_usize..5_000,
        ) {
            let mut ends = std::collections::BTreeSet::from([0]);
            let mut stream = Vec::new();
            for (length, masked) in frames {
                stream.extend(frame(length, masked));
                ends.insert(stream.len());
            }
            let mut boundary = FrameBoundary::default();
            let mut at = 0;
            for piece in stream.chunks(cut) {
                boundary.take(piece);
                at += piece.len();
                prop_assert_eq!(boundary.is_between_frames(), ends.contains(&at));
            }
        }
    }

    #[test]
    fn a_close_frame_is_a_frame() {
        for (frame, status) in [(GOING_AWAY, 1_001), (SERVICE_RESTART, 1_012)] {
            let mut boundary = FrameBoundary::default();
            boundary.take(&frame);
            assert!(boundary.is_between_frames());
            assert_eq!(u16::from_be_bytes([frame[2], frame[3]]), status);
        }
    }

    proptest::proptest! {
        #![proptest_config(twinsite_fuzz::config())]

        /// Whatever comes, in one piece or byte by byte: the same boundary.
        #[test]
        fn fuzz_websocket_frames(bytes in twinsite_fuzz::mutated(
            [(0, false), (5, true), (200, false), (70_000, true)].map(|(length, masked)| frame(length, masked)).into()
        )) {
            let (mut whole, mut pieces) = (FrameBoundary::default(), FrameBoundary::default());
            whole.take(&bytes);
            bytes.chunks(1).for_each(|byte| pieces.take(byte));
            proptest::prop_assert_eq!(whole.is_between_frames(), pieces.is_between_frames());
            proptest::prop_assert_eq!(whole.payload_left, pieces.payload_left);
        }
    }
}
