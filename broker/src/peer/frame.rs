//! Headers around requests and responses, without the size in front.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Call, PeerError};
use crate::api::dispatch::varint;

/// Bytes that a header takes at most.
pub(super) fn header_size(client_id: &str) -> usize {
    11 + client_id.len()
}

pub(super) fn put_header(frame: &mut BytesMut, call: Call, correlation_id: i32, client_id: &str) {
    frame.put_i16(call.key);
    frame.put_i16(call.version);
    frame.put_i32(correlation_id);
    if call.request_header_version >= 1 {
        // Broker ids and names of fetchers: far shorter than what a length of two bytes can say.
        frame.put_i16(client_id.len() as i16);
        frame.put_slice(client_id.as_bytes());
    }
    if call.request_header_version >= 2 {
        // No tagged fields.
        frame.put_u8(0);
    }
}

/// What follows the header of a response that answers the request of `correlation_id`.
pub(super) fn response_body(
    mut response: Bytes,
    header_version: i16,
    correlation_id: i32,
) -> Result<Bytes, PeerError> {
    let truncated = || PeerError::Malformed("a response ends within its header".to_owned());
    let found = response.try_get_i32().map_err(|_| truncated())?;
    if found != correlation_id {
        return Err(PeerError::Malformed(format!(
            "correlation id {found} instead of {correlation_id}"
        )));
    }
    if header_version >= 1 {
        for _ in 0..varint(&mut response).ok_or_else(truncated)? {
            varint(&mut response).ok_or_else(truncated)?;
            let size = varint(&mut response).ok_or_else(truncated)? as usize;
            if size > response.len() {
                return Err(truncated());
            }
            response.advance(size);
        }
    }
    Ok(response)
}
