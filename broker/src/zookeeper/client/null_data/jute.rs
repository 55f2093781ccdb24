//! Jute, ZooKeeper's encoding: big-endian numbers, and buffers and texts behind their length.

/// The bytes do not hold what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent bytes that are no answer of ZooKeeper's protocol")]
pub(super) struct Malformed;

/// Appends values to a message.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(u8::from(value));
        self
    }

    pub(super) fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// `None` is null: length -1.
    pub(super) fn buffer(&mut self, value: Option<&[u8]>) -> &mut Self {
        let Some(bytes) = value else {
            return self.int(-1);
        };
        self.int(bytes.len() as i32);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.buffer(Some(value.as_bytes()))
    }
}

/// Takes values from a message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        self.take::<1>().map(|[byte]| byte != 0)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.take().map(i64::from_be_bytes)
    }

    /// Any negative length is null.
    pub(super) fn buffer(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let Ok(length) = usize::try_from(self.int()?) else {
            return Ok(None);
        };
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = tail;
        Ok(Some(head))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.buffer()?.ok_or(Malformed)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed)
    }
}
