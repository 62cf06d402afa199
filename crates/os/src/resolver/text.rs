//! The text that stands in `/etc/resolv.conf` while it is ours.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

/// Whose text a file holds, by its first line. That line tells after a crash that there is something to restore.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Author {
    /// This module.
    Us,
    /// Firezone's client, which this one may have replaced while it was running.
    Firezone,
    /// The system, or a person.
    Somebody,
}

const BEGIN: &str = "# BEGIN connlib DNS configuration";
const END: &str = "# END connlib DNS configuration";
const BEGIN_FIREZONE: &str = "# BEGIN Firezone DNS configuration";

/// What libc reads of a file; it ignores the rest (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;

impl Author {
    pub(super) fn of(contents: &[u8]) -> Self {
        let first = contents.split(|byte| *byte == b'\n').next();
        let first = first.unwrap_or_default().trim_ascii_end();

        if first == BEGIN.as_bytes() {
            Self::Us
        } else if first == BEGIN_FIREZONE.as_bytes() {
            Self::Firezone
        } else {
            Self::Somebody
        }
    }
}

/// Our text: the first servers, the search domain, and of the options those that don't contradict. What it has of the
/// options stands below the end of our part, where [`without_ours`] leaves it.
pub(super) fn ours(
    servers: &[IpAddr],
    search: Option<&str>,
    options: &[String],
    backup: &Path,
) -> String {
    let mut text = format!("{BEGIN}\n# The file as it was: {}\n", backup.display());
    for server in servers.iter().take(MAX_SERVERS) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if let Some(search) = search {
        let _ = writeln!(text, "search {search}");
    }
    let _ = writeln!(text, "options ndots:1\n{END}");

    let mut options = options
        .iter()
        .filter(|option| !option.starts_with("ndots:"))
        .peekable();
    if options.peek().is_some() {
        text.push_str("options");
        for option in options {
            text.push(' ');
            text.push_str(option);
        }
        text.push('\n');
    }

    text
}

/// What is left of a text that isn't [`Somebody`](Author::Somebody)'s without the part that is written by us; nothing if
/// it doesn't say where that part ends.
pub(super) fn without_ours(contents: &[u8]) -> &[u8] {
    let mut rest = contents;
    while !rest.is_empty() {
        let len = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(len);
        if line.trim_ascii_end() == END.as_bytes() {
            return after;
        }
        rest = after;
    }

    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKUP: &str = "/etc/resolv.conf.before-connlib";

    #[test]
    fn the_text_names_servers_search_and_options() {
        let servers = ["100.100.111.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let options = ["edns0", "ndots:5", "rotate"].map(String::from);

        let text = ours(&servers, Some("corp.test"), &options, Path::new(BACKUP));

        assert_eq!(
            text,
            "# BEGIN connlib DNS configuration\n\
             # The file as it was: /etc/resolv.conf.before-connlib\n\
             nameserver 100.100.111.1\n\
             nameserver fd00::1\n\
             search corp.test\n\
             options ndots:1\n\
             # END connlib DNS configuration\n\
             options edns0 rotate\n"
        );
        assert_eq!(Author::of(text.as_bytes()), Author::Us);
        assert_eq!(without_ours(text.as_bytes()), b"options edns0 rotate\n");
    }

    #[test]
    fn libc_reads_three_servers() {
        let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
        let servers = servers.map(|ip| ip.parse().unwrap());

        let text = ours(&servers, None, &[], Path::new(BACKUP));

        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(!text.contains("192.0.2.4") && !text.contains("search"));
        assert_eq!(without_ours(text.as_bytes()), b"");
    }

    #[test]
    fn the_first_line_tells_the_author() {
        for (text, author) in [
            ("# BEGIN connlib DNS configuration", Author::Us),
            ("# BEGIN connlib DNS configuration\r\nx", Author::Us),
            ("# BEGIN Firezone DNS configuration\n", Author::Firezone),
            ("\n# BEGIN connlib DNS configuration\n", Author::Somebody),
            ("# BEGIN connlib DNS configuration?\n", Author::Somebody),
            ("", Author::Somebody),
        ] {
            assert_eq!(Author::of(text.as_bytes()), author, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_part_without_an_end() {
        for text in [
            "",
            "# BEGIN Firezone DNS configuration\nnameserver 192.0.2.1\n",
            BEGIN,
        ] {
            assert_eq!(without_ours(text.as_bytes()), b"");
        }
        assert_eq!(without_ours(format!("{BEGIN}\n{END}\nx").as_bytes()), b"x");
    }
}
