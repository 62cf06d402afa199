use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn refusal(text: &str) -> (usize, String, String) {
    let text = text.replace("KEY", KEY).replace("OTHER", OTHER);
    let Mistake { line, key, problem } = parse(&text).unwrap_err();

    (line, key, problem)
}

#[test]
fn a_file_of_wg_quick_is_understood() {
    let text = format!(
        "# ours\n[Interface]\nPrivateKey = {KEY}\nListenPort=51820\naddress = 10.0.0.1/24, fd00::1/64 # two\nMTU = 1420\n\n\
         [Peer]\nPublicKey = {KEY}\nPresharedKey = {KEY}\nEndpoint = [2001:db8::1]:51821\n\
         AllowedIPs = 10.0.0.2, 10.1.2.3/16\nAllowedIPs = fd01::/64\nPersistentKeepalive = 25\n\n\
         [Peer]\nPublicKey = {OTHER}\nPersistentKeepalive = off\n"
    );
    let config = parse(&text).unwrap();

    assert_eq!(config.listen_port, 51_820);
    assert_eq!(config.addresses.len(), 2);
    assert_eq!((config.mtu, config.device_mtu()), (Some(1_420), 1_280));
    let allowed = |peer: &Peer| {
        peer.allowed
            .iter()
            .map(IpNet::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        allowed(&config.peers[0]),
        ["10.0.0.2/32", "10.1.0.0/16", "fd01::/64"]
    );
    let link = &config.peers[0].link;
    assert_eq!(link.endpoint.unwrap().port(), 51_821);
    assert_eq!(link.keepalive, Some(Duration::from_secs(25)));
    assert!(link.preshared_key.is_some());
    assert_eq!(config.peers[1].link.keepalive, None);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let interface = "[Interface]\nPrivateKey = KEY\n";
    for (text, line, key) in [
        ("", 0, "PrivateKey"),
        ("PrivateKey = KEY", 1, "PrivateKey"),
        ("[Interface]\nPrivateKey = KEY=", 2, "PrivateKey"),
        (
            "[Interface]\nPrivateKey = KEY\nPrivateKey = KEY",
            3,
            "PrivateKey",
        ),
        ("[Interface]\nDNS = 1.1.1.1", 2, "DNS"),
        ("[Interface]\nListenPort = 65536", 2, "ListenPort"),
        ("[Interface]\nMTU = 100", 2, "MTU"),
        ("[Interface]\nAddress = 10.0.0.1/33", 2, "Address"),
        ("[Interface]\nnonsense", 2, "nonsense"),
        ("[Peers]\nPublicKey = KEY", 1, "[Peers]"),
    ] {
        let (at, named, _) = refusal(text);
        assert_eq!((at, named.as_str()), (line, key), "{text}");
    }
    for (peer, line, key) in [
        ("[Peer]\n", 3, "PublicKey"),
        ("[Peer]\nPublicKey = x", 4, "PublicKey"),
        (
            "[Peer]\nPublicKey = KEY\nEndpoint = example.org:1",
            5,
            "Endpoint",
        ),
        (
            "[Peer]\nPublicKey = KEY\nPersistentKeepalive = 70000",
            5,
            "PersistentKeepalive",
        ),
        ("[Peer]\nPublicKey = KEY\nAllowedIPs = ", 5, "AllowedIPs"),
        (
            "[Peer]\nPublicKey = KEY\n[Peer]\nPublicKey = KEY",
            5,
            "PublicKey",
        ),
        (
            "[Peer]\nPublicKey = KEY\nAllowedIPs = 10.0.0.1/8\n[Peer]\nPublicKey = OTHER\nAllowedIPs = 10.0.0.0/8",
            6,
            "AllowedIPs",
        ),
        (
            "[Peer]\nPublicKey = KEY\nEndpoint = 192.0.2.1:1\nAllowedIPs = 0.0.0.0/0",
            5,
            "Endpoint",
        ),
    ] {
        let (at, named, _) = refusal(&format!("{interface}{peer}"));
        assert_eq!((at, named.as_str()), (line, key), "{peer}");
    }
}

#[test]
fn no_secret_is_repeated() {
    let (_, _, problem) = refusal("[Interface]\nPrivateKey = hunter2");
    assert!(!problem.contains("hunter2"), "{problem}");
}
