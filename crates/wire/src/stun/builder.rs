//! Writing messages.

use super::attribute::{FINGERPRINT, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Value};
use super::kind::message_type;
use super::{Attribute, Class, HEADER_LEN, MAGIC_COOKIE, Method, StunError, TransactionId, auth};
use crate::buffer::Buffer;

/// Writes one message into a pooled buffer, attribute by attribute.
///
/// ```
/// use connlib_wire::buffer::Pool;
/// use connlib_wire::stun::{Attribute, Builder, Class, Message, Method, TransactionId};
///
/// let pool = Pool::new(2_048, 1);
/// let request = Builder::new(pool.take(0), Method::Binding, Class::Request, TransactionId([7; 12]))
///     .attribute(Attribute::Software("me"))
///     .finish()?;
/// assert_eq!(Message::parse(&request)?.method(), Method::Binding);
/// # Ok::<_, connlib_wire::stun::StunError>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    buffer: Buffer,
    id: TransactionId,
    fits: bool,
}

impl Builder {
    /// Begins a message in an empty `buffer`.
    pub fn new(mut buffer: Buffer, method: Method, class: Class, id: TransactionId) -> Self {
        buffer.truncate(0);
        let mut builder = Self {
            buffer,
            id,
            fits: true,
        };
        builder.put(&message_type(method, class).to_be_bytes());
        builder.put(&[0, 0]);
        builder.put(&MAGIC_COOKIE.to_be_bytes());
        builder.put(&id.0);

        builder
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, attribute: Attribute<'_>) -> Self {
        let header_at = self.buffer.len();
        self.put(&[0; 4]);
        let mut value = Value {
            buffer: &mut self.buffer,
            fits: self.fits,
        };
        let code = attribute.encode(&mut value, self.id);
        self.fits = value.fits;

        let length = self.buffer.len().saturating_sub(header_at + 4);
        let [c0, c1] = code.to_be_bytes();
        let [l0, l1] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(header) = self
            .buffer
            .get_mut(header_at..)
            .and_then(|rest| rest.first_chunk_mut::<4>())
        {
            *header = [c0, c1, l0, l1];
        }
        let padding = length.next_multiple_of(4) - length;
        self.put([0; 3].get(..padding).unwrap_or_default());

        self
    }

    /// Adds an attribute if there is one.
    #[must_use]
    pub fn maybe(self, attribute: Option<Attribute<'_>>) -> Self {
        match attribute {
            Some(attribute) => self.attribute(attribute),
            None => self,
        }
    }

    /// Adds MESSAGE-INTEGRITY made with `key` over everything so far.
    #[must_use]
    pub fn integrity(self, key: &[u8]) -> Self {
        let mac = auth::integrity(key, &self.buffer);

        self.attribute(Attribute::Unknown(MESSAGE_INTEGRITY, &mac))
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 made with `key` over everything so far.
    #[must_use]
    pub fn integrity_sha256(self, key: &[u8]) -> Self {
        let mac = auth::integrity_sha256(key, &self.buffer);

        self.attribute(Attribute::Unknown(MESSAGE_INTEGRITY_SHA256, &mac))
    }

    /// Adds FINGERPRINT over everything so far. Nothing may follow it.
    #[must_use]
    pub fn fingerprint(self) -> Self {
        let crc = auth::fingerprint(&self.buffer).to_be_bytes();

        self.attribute(Attribute::Unknown(FINGERPRINT, &crc))
    }

    /// Ends the message.
    ///
    /// # Errors
    ///
    /// [`StunError::TooLong`] if something did not fit.
    pub fn finish(mut self) -> Result<Buffer, StunError> {
        let length = self.buffer.len().saturating_sub(HEADER_LEN);
        let length = u16::try_from(length).map_err(|_| StunError::TooLong)?;
        let slot = self.buffer.get_mut(2..4).ok_or(StunError::TooLong)?;
        slot.copy_from_slice(&length.to_be_bytes());

        if self.fits {
            Ok(self.buffer)
        } else {
            Err(StunError::TooLong)
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let mut value = Value {
            buffer: &mut self.buffer,
            fits: self.fits,
        };
        value.put(bytes);
        self.fits = value.fits;
    }
}
