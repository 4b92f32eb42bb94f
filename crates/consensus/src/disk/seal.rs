//! A checksum around every stored value, over the key as well, so that a value in the wrong place is noticed too.

/// Puts the checksum before the value.
pub(super) fn seal(key: u64, value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + 4);
    sealed.extend_from_slice(&checksum(key, value).to_le_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// The value, if the checksum is right.
pub(super) fn unseal(key: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (sum, value) = sealed.split_first_chunk()?;
    (u32::from_le_bytes(*sum) == checksum(key, value)).then_some(value)
}

fn checksum(key: u64, value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.to_le_bytes()), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_under_another_key_or_with_another_byte_is_refused() {
        let sealed = seal(7, b"value");
        assert_eq!(unseal(7, &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(8, &sealed), None);
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(unseal(7, &flipped), None, "byte {at}");
        }
        assert_eq!(unseal(7, &[1, 2]), None);
    }
}
