//! Little-endian base-128 numbers, as protobuf has them; used by [`super::kv`] and [`super::cell`].

/// Appends `number`, 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads one number off the front; None where it is cut off or longer than 10 bytes.
pub(crate) fn get(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_cut_ones_do_not() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            bytes.push(9);
            assert_eq!(get(&bytes), Some((number, &[9u8][..])));
            assert_eq!(get(&bytes[..bytes.len() - 2]), None);
        }
        assert_eq!(get(&[0xff; 11]), None);
    }
}
