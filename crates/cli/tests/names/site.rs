//! The gateway as a name server of its site (gateway.md §12).

use crate::servers::LONG_TEXT;
use crate::tools::Said;
use crate::world::{Plan, World};

#[test]
#[ignore = "needs root, /dev/net/tun, dig, curl, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_gateway_answers_for_its_site_and_for_resources_alone() {
    let Some(mut world) = World::new(&["curl"], Plan::default()) else {
        return;
    };
    assert!(world.curl(&["http://wiki.corp.test/"]).is_ok());
    let gateway = world.tunnel_addresses("gateway");
    assert_eq!(gateway.len(), 2, "{gateway:?}");
    let ask_all = |world: &World, words: &[&str]| -> Vec<Said> {
        let asked = gateway
            .iter()
            .flat_map(|at| ["+notcp", "+tcp"].map(|carrier| (*at, carrier)));
        let ask = |(at, carrier)| world.dig_at(at, &[&["-p", "53535", carrier], words].concat());
        asked.map(ask).collect()
    };
    for (name, kind, data) in [
        ("wiki.corp.test", "TXT", "\"the wiki\""),
        ("wiki.corp.test", "SRV", "0 5 80 wiki.corp.test."),
        ("mail.corp.test", "A", "10.20.0.11"),
    ] {
        for said in ask_all(&world, &[name, kind]) {
            said.assert_status("NOERROR");
            said.assert_data(&[data]);
        }
    }
    for said in ask_all(&world, &["missing.corp.test", "SRV"]) {
        said.assert_status("NXDOMAIN");
    }
    for said in ask_all(
        &world,
        &["long.corp.test", "TXT", "+ignore", "+bufsize=4096"],
    ) {
        // What travels by UDP is cut off at 1,200 bytes.
        if said.flags().contains("tc") {
            assert!(said.size() <= 1_200, "{said}");
        } else {
            let text = said.data().concat();
            assert_eq!(text.matches('x').count(), LONG_TEXT, "{said}");
        }
    }
    // Others' names are no business of a client.
    for name in ["www.example.test", "who.inside.test", "other.exact.test"] {
        for said in ask_all(&world, &[name, "TXT"]) {
            said.assert_status("REFUSED");
            said.assert_reason(18, "the name belongs to no resource of this client");
        }
    }
    world.end("site");
    for said in ask_all(&world, &["mail.corp.test", "TXT"]) {
        said.assert_status("SERVFAIL");
        said.assert_reason(22, "no name server of the site answered");
    }
    // What its machine knows by itself it still knows.
    assert_eq!(
        world.curl(&["http://hosted.corp.test/"]),
        Ok("10.20.0.11\n".into())
    );
    world.assert_calm();
}
