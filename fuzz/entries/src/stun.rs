//! STUN and TURN messages, and channel data.
//!
//! * What is parsed and written again has the same meaning; written once more, the same bytes.
//! * A message is exactly as long as it says: a byte more or less, and it is none.
//! * What was signed verifies with its key alone, and not after a bit of it changed.
//! * Channel data is its header and its payload, and the payload is no shorter than the header says.

use connlib_wire::buffer::Pool;
use connlib_wire::channel::{self, ChannelNumber};
use connlib_wire::stun::{Attribute, Builder, Message, StunError, is_stun_prefix};

use crate::choices::Choices;

/// The longest message: a header and what its length can say.
const MAX_MESSAGE: usize = 20 + 0xFFFF;

const KEY: &[u8] = b"a key";

/// Sixteen bits that decide, then a datagram.
pub fn stun(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let bit = choices.word();
    let datagram = choices.rest();

    assert!(!is_stun_prefix(datagram) || !channel::is_channel_prefix(datagram));
    channel_data(datagram);
    let Ok(message) = Message::parse(datagram) else {
        return;
    };
    assert_eq!(message.bytes(), datagram);
    is_all_there_is(datagram);

    let attributes: Vec<_> = message.attributes().collect();
    same_firsts(&message, &attributes);
    let Ok(attributes) = attributes.into_iter().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let Some(plain) = written(&message, &attributes, |builder| builder) else {
        return;
    };
    let again = Message::parse(&plain).expect("what we write can be read");
    assert_eq!(
        (again.method(), again.class(), again.transaction_id()),
        (message.method(), message.class(), message.transaction_id())
    );
    assert!(again.attributes().eq(attributes.iter().copied().map(Ok)));
    let same = written(&again, &attributes, |builder| builder).expect("it fitted before");
    assert_eq!(plain, same);

    signed(&message, &attributes, bit);
}

fn channel_data(datagram: &[u8]) {
    let Some((number, payload)) = channel::decode(datagram) else {
        return;
    };
    let header = channel::header(number, payload.len()).expect("its length was read from one");
    assert_eq!(datagram[..channel::HEADER_LEN], header);
    let end = channel::HEADER_LEN + payload.len();
    assert_eq!(&datagram[channel::HEADER_LEN..end], payload);
    assert!(channel::decode(&datagram[..end - 1]).is_none());
    assert_eq!(
        channel::decode(&datagram[..end]),
        Some((number, payload)),
        "padding says nothing"
    );

    let is_ours = (ChannelNumber::MIN..=ChannelNumber::MAX).contains(&number);
    assert_eq!(channel::is_channel_prefix(datagram), is_ours);
    let next = number.next();
    assert!((ChannelNumber::MIN..=ChannelNumber::MAX).contains(&next) || !is_ours);
}

fn is_all_there_is(datagram: &[u8]) {
    let mut longer = datagram.to_vec();
    longer.push(0);
    assert_eq!(Message::parse(&longer).err(), Some(StunError::NotStun));
    let shorter = &datagram[..datagram.len() - 1];
    assert_eq!(Message::parse(shorter).err(), Some(StunError::NotStun));
}

/// The getters give the first valid attribute of their kind.
fn same_firsts(message: &Message<'_>, attributes: &[Result<Attribute<'_>, StunError>]) {
    let valid = || attributes.iter().flatten();
    let username = valid().find_map(|it| match it {
        Attribute::Username(name) => Some(*name),
        _ => None,
    });
    assert_eq!(message.username(), username);
    let code = valid().find_map(|it| match it {
        Attribute::ErrorCode(code, _) => Some(*code),
        _ => None,
    });
    assert_eq!(message.error_code(), code);
    assert!(code.is_none_or(|code| (300..700).contains(&code)));
    let relayed = valid().filter_map(|it| match it {
        Attribute::XorRelayedAddress(address) => Some(*address),
        _ => None,
    });
    assert!(message.relayed_addresses().eq(relayed));
    let lifetime = valid().find_map(|it| match it {
        Attribute::Lifetime(lifetime) => Some(*lifetime),
        _ => None,
    });
    assert_eq!(message.lifetime(), lifetime);
    let mapped = valid().find_map(|it| match it {
        Attribute::XorMappedAddress(address) => Some(*address),
        _ => None,
    });
    assert_eq!(message.mapped_address(), mapped);
}

/// Integrity and fingerprint hold for what was written, and for nothing else.
fn signed(message: &Message<'_>, attributes: &[Attribute<'_>], bit: u16) {
    let Some(signed) = written(message, attributes, |builder| {
        builder.integrity(KEY).fingerprint()
    }) else {
        return;
    };
    let whole = Message::parse(&signed).expect("what we write can be read");
    assert!(whole.has_integrity() && whole.verify(KEY));
    assert!(!whole.verify(b"another"));
    assert_eq!(whole.fingerprint_matches(), Some(true));

    // Everything in front of the fingerprint is covered by it. With another type, an attribute may be a fingerprint or
    // an integrity in the place of ours.
    let covered = signed.len() - 8;
    let (at, mask) = (usize::from(bit >> 3) % covered, 1 << (bit & 7));
    let mut changed = signed.clone();
    changed[at] ^= mask;
    if types(&changed) != types(&signed) {
        return;
    }
    let Ok(changed) = Message::parse(&changed) else {
        return;
    };
    assert_ne!(changed.fingerprint_matches(), Some(true));
    assert!(!changed.verify(KEY));
}

/// The attributes' types, as far as they can be read.
fn types(message: &[u8]) -> Vec<[u8; 2]> {
    let mut types = Vec::new();
    let mut rest = message.get(20..).unwrap_or_default();
    while let Some(([t0, t1, l0, l1], value)) = rest.split_first_chunk::<4>() {
        types.push([*t0, *t1]);
        let length = usize::from(u16::from_be_bytes([*l0, *l1])).next_multiple_of(4);
        rest = value.get(length..).unwrap_or_default();
    }

    types
}

fn written(
    message: &Message<'_>,
    attributes: &[Attribute<'_>],
    end: impl FnOnce(Builder) -> Builder,
) -> Option<Vec<u8>> {
    let pool = Pool::new(MAX_MESSAGE, 1);
    let mut builder = Builder::new(
        pool.take(0),
        message.method(),
        message.class(),
        message.transaction_id(),
    );
    for attribute in attributes {
        builder = builder.attribute(*attribute);
    }

    Some(end(builder).finish().ok()?.to_vec())
}
