//! Why a question got no better answer, in words for whoever asked (RFC 8914).

use std::borrow::Cow;

use connlib_wire::dns::ExtendedError;
use connlib_wire::ip::IcmpError;

use crate::dns::Failure;

pub(super) fn told(code: u16, text: impl Into<Cow<'static, str>>) -> ExtendedError {
    ExtendedError::new(code, text)
}

/// What refused access means to who asked for a name.
pub(super) fn refusal(error: IcmpError) -> ExtendedError {
    match error {
        IcmpError::Prohibited => told(
            ExtendedError::PROHIBITED,
            "access to this resource is refused by policy",
        ),
        IcmpError::Unreachable | IcmpError::TooBig { .. } | _ => told(
            ExtendedError::NO_REACHABLE_AUTHORITY,
            "no gateway of the resource's site is online",
        ),
    }
}

pub(super) fn reason(failure: &Failure) -> ExtendedError {
    match failure {
        Failure::NoServers => told(ExtendedError::NOT_READY, "there is no name server to ask"),
        Failure::Busy => told(ExtendedError::OTHER, "too many questions at once"),
        Failure::TimedOut => told(
            ExtendedError::NO_REACHABLE_AUTHORITY,
            "no name server answered in time",
        ),
        Failure::Unreachable(why) => told(
            ExtendedError::NETWORK_ERROR,
            format!("no name server can be asked: {why}"),
        ),
        Failure::Interrupted => told(ExtendedError::NOT_READY, "the resource has changed"),
    }
}
