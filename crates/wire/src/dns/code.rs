//! Numbers with names (IANA, "Domain Name System (DNS) Parameters").

use std::fmt;

/// Gives numbers of a kind their names, as constants and as text.
macro_rules! names {
    ($type:ident: $($name:ident = $value:literal, $doc:literal;)*) => {
        impl $type {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// The name the field has for it.
            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

/// The type of a record, or of the records that are asked for.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordType(pub u16);

names! { RecordType:
    A = 1, "An IPv4 address.";
    NS = 2, "A server of the zone.";
    CNAME = 5, "The name that this one is another name of.";
    SOA = 6, "The zone's parameters.";
    PTR = 12, "The name of an address.";
    MX = 15, "A mail server.";
    TXT = 16, "Text.";
    SIG = 24, "A signature of the message (RFC 2931).";
    AAAA = 28, "An IPv6 address.";
    SRV = 33, "A service's host and port.";
    NAPTR = 35, "A rule to rewrite with (RFC 3403).";
    DNAME = 39, "The name that everything below this one is below of.";
    OPT = 41, "Not a record but what the sender can do (RFC 6891).";
    DS = 43, "A hash of the key of a zone below.";
    RRSIG = 46, "A signature of records.";
    NSEC = 47, "The next name of the zone.";
    DNSKEY = 48, "A zone's key.";
    NSEC3 = 50, "The next hash of a name of the zone.";
    TLSA = 52, "A server's certificate.";
    SVCB = 64, "How to reach a service (RFC 9460).";
    HTTPS = 65, "How to reach a web server (RFC 9460).";
    TSIG = 250, "A signature of the message by a shared secret (RFC 8945).";
    IXFR = 251, "What changed in the zone.";
    AXFR = 252, "The whole zone.";
    ANY = 255, "Whatever there is.";
    CAA = 257, "Who may certify the name.";
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0), // RFC 3597 §5
        }
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a question fared. Codes above 15 need an OPT record for their upper bits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rcode(pub u16);

names! { Rcode:
    NOERROR = 0, "It was answered, if only that there is no such record.";
    FORMERR = 1, "It was not understood.";
    SERVFAIL = 2, "It could not be answered.";
    NXDOMAIN = 3, "There is no such name.";
    NOTIMP = 4, "Such questions are not answered here.";
    REFUSED = 5, "Such askers are not answered here.";
    BADVERS = 16, "Its version of EDNS is unknown.";
    BADCOOKIE = 23, "Its cookie is wrong (RFC 7873).";
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

impl fmt::Debug for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Classes of records.
pub mod class {
    /// The Internet.
    pub const IN: u16 = 1;
    /// What servers tell of themselves.
    pub const CH: u16 = 3;
    /// Any of them.
    pub const ANY: u16 = 255;
}
