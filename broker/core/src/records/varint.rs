//! Zig-zag varints as records have them (Kafka's `ByteUtils`).

/// Why no varint could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VarintError {
    /// The bytes ended within it.
    End,
    /// It goes on beyond 5 (32 bits) or 10 bytes (64 bits).
    TooLong,
}

impl From<VarintError> for super::RecordError {
    fn from(error: VarintError) -> Self {
        Self::Malformed(match error {
            VarintError::End => "Incorrect declared batch size, premature EOF reached",
            VarintError::TooLong => "Found invalid record structure",
        })
    }
}

/// The longest varint of 64 bits.
pub(super) const VARLONG_SIZE_MAX: usize = 10;

/// Reads a 32-bit varint at `position` and moves it on. Bits beyond the 32nd are dropped.
///
/// One and two bytes are read in line: most deltas and sizes have no more.
#[inline]
pub(super) fn read_varint(bytes: &[u8], position: &mut usize) -> Result<i32, VarintError> {
    match bytes.get(*position..) {
        Some([first, ..]) if *first < 0x80 => {
            *position += 1;
            Ok(un_zig_zag(u32::from(*first)))
        }
        Some([first, second, ..]) if *second < 0x80 => {
            *position += 2;
            Ok(un_zig_zag(two_bytes(*first, *second)))
        }
        Some(_) => read_long_form(bytes, position),
        None => Err(VarintError::End),
    }
}

#[inline]
fn two_bytes(first: u8, second: u8) -> u32 {
    u32::from(first & 0x7f) | u32::from(second) << 7
}

fn read_long_form(bytes: &[u8], position: &mut usize) -> Result<i32, VarintError> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let &byte = bytes.get(*position).ok_or(VarintError::End)?;
        *position += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(un_zig_zag(value));
        }
    }
    Err(VarintError::TooLong)
}

/// Reads a 64-bit varint at `position` and moves it on.
#[inline]
pub(super) fn read_varlong(bytes: &[u8], position: &mut usize) -> Result<i64, VarintError> {
    match bytes.get(*position..) {
        Some([first, ..]) if *first < 0x80 => {
            *position += 1;
            Ok(i64::from(un_zig_zag(u32::from(*first))))
        }
        Some([first, second, ..]) if *second < 0x80 => {
            *position += 2;
            Ok(i64::from(un_zig_zag(two_bytes(*first, *second))))
        }
        Some(_) => read_long_form_64(bytes, position),
        None => Err(VarintError::End),
    }
}

fn read_long_form_64(bytes: &[u8], position: &mut usize) -> Result<i64, VarintError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let &byte = bytes.get(*position).ok_or(VarintError::End)?;
        *position += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(VarintError::TooLong)
}

#[inline]
fn un_zig_zag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// Appends a varint; 32-bit values have the same form in 64 bits.
pub(super) fn write_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`write_varlong`] appends.
pub(super) fn size_of_varlong(value: i64) -> usize {
    let zig_zag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (zig_zag | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lies_are_refused() {
        let read = |bytes: &[u8]| read_varint(bytes, &mut 0);
        assert_eq!(read(&[]), Err(VarintError::End));
        assert_eq!(read(&[0x80]), Err(VarintError::End));
        assert_eq!(read(&[0x80; 5]), Err(VarintError::TooLong));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x7f]), Ok(i32::MIN));
        assert_eq!(read_varlong(&[0x80; 10], &mut 0), Err(VarintError::TooLong));
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, small: i32) {
            for value in [value, i64::from(small), value >> 40] {
                let mut bytes = Vec::new();
                write_varlong(&mut bytes, value);
                prop_assert_eq!(bytes.len(), size_of_varlong(value));
                let mut position = 0;
                prop_assert_eq!(read_varlong(&bytes, &mut position), Ok(value));
                prop_assert_eq!(position, bytes.len());
                if let Ok(value) = i32::try_from(value) {
                    prop_assert_eq!(read_varint(&bytes, &mut 0), Ok(value));
                }
            }
        }
    }
}
