//! The path as a picture.

use crate::rig::plan::{Place, RESOURCE};
use crate::rig::system::PathKind;

/// Draws how packets travel from the client to the resource.
pub(super) fn draw(path: PathKind) -> String {
    // Addresses as texts: padding is for texts.
    let client = Place::Client.subnet().host_v4().to_string();
    let gateway = Place::Gateway.subnet().host_v4().to_string();
    let relay = Place::Relay.subnet().host_v4();

    let lines = match path {
        PathKind::Direct => [
            "                          relay".into(),
            format!("                       {relay}"),
            "                            ·".into(),
            "   client ═══════════════ router ═══════════════ gateway ────── resource".into(),
            format!(" {client:<45}{gateway:<17}{RESOURCE}"),
            String::new(),
            " ═══ WireGuard, sealed from end to end    ─── plain    · not in use".into(),
        ],
        PathKind::Relayed => [
            "               ╔═════════ relay ══════════╗".into(),
            format!("               ║       {relay}       ║"),
            "               ║                          ║".into(),
            "   client ═════╝            ✗             ╚═════ gateway ────── resource".into(),
            format!(" {client:<45}{gateway:<17}{RESOURCE}"),
            String::new(),
            " ═══ WireGuard, sealed from end to end    ─── plain    ✗ forbidden".into(),
        ],
    };

    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_fits_a_terminal_and_names_both_ends() {
        for path in [PathKind::Direct, PathKind::Relayed] {
            let picture = draw(path);

            assert!(picture.contains("192.0.2.10") && picture.contains("10.20.0.10"));
            assert!(picture.lines().all(|line| line.chars().count() <= 80));
        }
        assert!(draw(PathKind::Relayed).contains("═ relay ═"));
    }
}
