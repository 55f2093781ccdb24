//! Reading and writing the fields of versioned keys and values in internal topics.
//!
//! Classic encodings are written; the compact ones of flexible versions (KIP-482) are only read.

use bytes::Bytes;

/// Why bytes are not the fields that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the bytes end before their last field")]
    Cut,
    #[error("a field is null that must not be")]
    Null,
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("a length is negative or too large")]
    Length,
}

/// Reads fields one after the other.
pub struct Reader<'a> {
    bytes: &'a Bytes,
    position: usize,
    is_flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a Bytes) -> Self {
        Self {
            bytes,
            position: 0,
            is_flexible: false,
        }
    }

    /// What follows is in compact encodings.
    pub fn flexible(&mut self) {
        self.is_flexible = true;
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FieldError> {
        let end = self.position.checked_add(length).ok_or(FieldError::Cut)?;
        let taken = self.bytes.get(self.position..end).ok_or(FieldError::Cut)?;
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        self.take(N)?.try_into().map_err(|_| FieldError::Cut)
    }

    pub fn i8(&mut self) -> Result<i8, FieldError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, FieldError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, FieldError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, FieldError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn varint(&mut self) -> Result<u32, FieldError> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FieldError::Length)
    }

    /// A compact length is one more than it says; none is null.
    fn length(
        &mut self,
        classic: impl Fn(&mut Self) -> Result<i64, FieldError>,
    ) -> Result<Option<usize>, FieldError> {
        let length = if self.is_flexible {
            i64::from(self.varint()?) - 1
        } else {
            classic(self)?
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| FieldError::Length),
        }
    }

    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, FieldError> {
        let Some(length) = self.length(|reader| reader.i16().map(i64::from))? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(length)?);
        text.map(Some).map_err(|_| FieldError::NotUtf8)
    }

    pub fn string(&mut self) -> Result<&'a str, FieldError> {
        self.nullable_string()?.ok_or(FieldError::Null)
    }

    pub fn bytes(&mut self) -> Result<Bytes, FieldError> {
        let length = self.length(|reader| reader.i32().map(i64::from))?;
        let taken = self.take(length.ok_or(FieldError::Null)?)?;
        Ok(self.bytes.slice_ref(taken))
    }

    /// How many elements an array has, `None` if it is null; never more than bytes are left.
    pub fn nullable_count(&mut self) -> Result<Option<usize>, FieldError> {
        let count = self.length(|reader| reader.i32().map(i64::from))?;
        if count.is_some_and(|count| count > self.bytes.len() - self.position) {
            return Err(FieldError::Cut);
        }
        Ok(count)
    }

    pub fn count(&mut self) -> Result<usize, FieldError> {
        self.nullable_count()?.ok_or(FieldError::Null)
    }

    /// Skips the tagged fields of a structure, which only flexible versions have.
    pub fn skip_tagged_fields(&mut self) -> Result<(), FieldError> {
        if !self.is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()? as usize;
            self.take(size)?;
        }
        Ok(())
    }
}

/// Writes fields one after the other.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
    has_too_long_text: bool,
}

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            out: Vec::with_capacity(capacity),
            has_too_long_text: false,
        }
    }

    pub fn i8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn string(&mut self, text: &str) {
        match i16::try_from(text.len()) {
            Ok(length) => {
                self.i16(length);
                self.out.extend_from_slice(text.as_bytes());
            }
            Err(_) => self.has_too_long_text = true,
        }
    }

    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.i16(-1),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.i32(bytes.len() as i32);
        self.out.extend_from_slice(bytes);
    }

    /// What was written; an error if some text has more than 32,767 bytes, which no classic length can say.
    pub fn finish(self) -> Result<Vec<u8>, FieldError> {
        if self.has_too_long_text {
            return Err(FieldError::Length);
        }
        Ok(self.out)
    }
}
