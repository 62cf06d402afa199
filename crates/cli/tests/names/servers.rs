//! Name servers that are other people's programs, and what they know.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_wire::dns::{Name, Query, RecordType};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::program::private_file;
use crate::tools::{PATIENCE, Service, command, wait_for};

/// How many characters the long text has, in strings of 250.
pub(crate) const LONG_TEXT: usize = 2_500;

/// What the site's own servers know.
const CORP: &str = "\
wiki 60 A 10.20.0.10
wiki 60 A 10.20.0.11
wiki 60 AAAA fd00:20::10
wiki 60 AAAA fd00:20::11
wiki 60 MX 10 mail.corp.test.
wiki 60 TXT \"the wiki\"
wiki 60 SRV 0 5 80 wiki.corp.test.
www 60 CNAME wiki
brief 2 TXT \"not for long\"
four 60 A 10.20.0.10
mail 60 A 10.20.0.11
";
const DEEP: &str = "\
a.b.c 60 A 10.20.0.10
_sip._tcp 60 SRV 0 5 5060 wiki.corp.test.
";
const EXACT: &str = "only 60 A 10.20.0.10\nonly 60 TXT \"exact\"\n";
const FAMILIES: &str = "\
v4 60 A 10.20.0.10
v4 60 AAAA fd00:20::10
v6 60 AAAA fd00:20::10
";

/// What a server at the site knows that is asked as an upstream.
const INSIDE: &str = "who 0 TXT \"inside\"\n";

/// A zone that can be validated; its long answers don't fit into a datagram.
const SIGNED: &str = "\
www 60 A 192.0.2.81
";

/// knot, as the site's name server, at these addresses.
pub(crate) fn site(namespace: &Namespace, directory: &Path, listen: &[IpAddr]) -> Service {
    let mut corp = CORP.to_owned();
    let text = format!(" \"{}\"", "x".repeat(250)).repeat(LONG_TEXT / 250);
    writeln!(corp, "long 60 TXT {text}").unwrap();
    let zones = [
        ("corp.test", corp.as_str()),
        ("deep.test", DEEP),
        ("exact.test", EXACT),
        ("fam.test", FAMILIES),
        ("inside.test", INSIDE),
    ];
    let listen: Vec<_> = listen.iter().map(|ip| format!("{ip}@53")).collect();

    let knot = knot(namespace, directory, &listen, &zones, "");
    for ip in &listen {
        let ip: IpAddr = ip.trim_end_matches("@53").parse().unwrap();
        wait_answer(namespace, (ip, 53).into(), "wiki.corp.test", &knot);
    }

    knot
}

/// knot, with a zone that it signs, on port 5300 of this machine alone. Returns also what to trust, as delv reads it.
pub(crate) fn signing(namespace: &Namespace, directory: &Path) -> (Service, String) {
    let mut zone = SIGNED.to_owned();
    let text = format!(" \"{}\"", "y".repeat(250)).repeat(LONG_TEXT / 250);
    writeln!(zone, "long 60 TXT {text}").unwrap();
    let policy =
        "policy:\n  - id: signed\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n";
    let zones = [("signed.test", zone.as_str())];
    let knot = knot(
        namespace,
        directory,
        &["127.0.0.1@5300".to_owned()],
        &zones,
        policy,
    );
    let address = ([127, 0, 0, 1], 5300).into();
    wait_answer(namespace, address, "www.signed.test", &knot);

    let key = crate::tools::stdout(
        command(namespace, "keymgr")
            .arg("-c")
            .arg(directory.join("knot.conf"))
            .args(["signed.test", "dnskey"]),
    );
    // `signed.test. DNSKEY 257 3 13 AAAA…`
    let words: Vec<_> = key.split_ascii_whitespace().collect();
    let at = words.iter().position(|word| *word == "DNSKEY").unwrap();
    let [flags, protocol, algorithm] = [words[at + 1], words[at + 2], words[at + 3]];
    let anchor = format!(
        "trust-anchors {{\n  signed.test. static-key {flags} {protocol} {algorithm} \"{}\";\n}};\n",
        words[at + 4..].concat()
    );

    (knot, anchor)
}

fn knot(
    namespace: &Namespace,
    directory: &Path,
    listen: &[String],
    zones: &[(&str, &str)],
    policy: &str,
) -> Service {
    fs::create_dir_all(directory).unwrap();
    let place = directory.display();
    let mut config = format!(
        "server:\n  rundir: \"{place}\"\n  listen: [ {} ]\n  udp-workers: 1\n  tcp-workers: 1\n  \
         background-workers: 1\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n  storage: \"{place}\"\n{policy}\
         template:\n  - id: default\n    storage: \"{place}\"\n    file: \"%s.zone\"\n    \
         zonefile-sync: -1\n    journal-content: none\n",
        listen.join(", "),
    );
    if !policy.is_empty() {
        config.push_str("    dnssec-signing: on\n    dnssec-policy: signed\n");
    }
    config.push_str("zone:\n");
    for (zone, records) in zones {
        writeln!(config, "  - domain: {zone}").unwrap();
        let head = format!(
            "$ORIGIN {zone}.\n@ 60 SOA ns host.{zone}. 1 3600 600 86400 30\n@ 60 NS ns\nns 60 A 192.0.2.53\n"
        );
        fs::write(
            directory.join(format!("{zone}.zone")),
            format!("{head}{records}"),
        )
        .unwrap();
    }
    let file = directory.join("knot.conf");
    fs::write(&file, config).unwrap();

    Service::start(
        command(namespace, "knotd").arg("-c").arg(file),
        directory.join("knot.log"),
    )
}

/// unbound, as a resolver on the Internet: Do53 on port 53, DoT on 853 and DoH on 443.
pub(crate) fn unbound(
    namespace: &Namespace,
    directory: &Path,
    listen: &[IpAddr],
    certificates: &Certificates,
) -> Service {
    fs::create_dir_all(directory).unwrap();
    let mut config = format!(
        "server:\n  directory: \"{0}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"{0}/pid\"\n  \
         use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  do-not-query-localhost: no\n  \
         access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  module-config: \"iterator\"\n  \
         tls-service-key: \"{1}\"\n  tls-service-pem: \"{2}\"\n  \
         local-zone: \".\" static\n  local-zone: \"signed.test.\" transparent\n  \
         local-data: \"www.example.test. 60 IN A 192.0.2.80\"\n  \
         local-data: \"who.example.test. 0 IN TXT unbound\"\n",
        directory.display(),
        certificates.key.display(),
        certificates.cert.display(),
    );
    for number in 0..100 {
        writeln!(
            config,
            "  local-data: \"n{number}.example.test. 600 IN A 192.0.2.{number}\""
        )
        .unwrap();
    }
    for ip in listen {
        for port in [53, 853, 443] {
            writeln!(config, "  interface: {ip}@{port}").unwrap();
        }
        // The name in the certificate, as the system's resolver knows it, and one that isn't.
        let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
        for name in [SERVER_NAME, IMPOSTOR] {
            writeln!(config, "  local-data: \"{name}. 60 IN {kind} {ip}\"").unwrap();
        }
    }
    config.push_str(
        "stub-zone:\n  name: \"signed.test\"\n  stub-addr: 127.0.0.1@5300\n\
         remote-control:\n  control-enable: no\n",
    );
    let file = directory.join("unbound.conf");
    fs::write(&file, config).unwrap();
    let unbound = Service::start(
        command(namespace, "unbound").arg("-d").arg("-c").arg(file),
        directory.join("unbound.log"),
    );
    for ip in listen {
        wait_answer(namespace, (*ip, 53).into(), "www.example.test", &unbound);
    }

    unbound
}

/// dnsmasq, as another resolver.
pub(crate) fn dnsmasq(namespace: &Namespace, directory: &Path, listen: IpAddr) -> Service {
    fs::create_dir_all(directory).unwrap();
    let mut dnsmasq = command(namespace, "dnsmasq");
    dnsmasq
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
        ])
        .args(["--no-resolv", "--no-hosts", "--bind-interfaces"])
        .arg(format!("--pid-file={}", directory.join("pid").display()))
        .arg(format!("--listen-address={listen}"))
        .args(["--host-record=www.example.test,192.0.2.80"])
        .args(["--txt-record=who.example.test,dnsmasq"]);
    let dnsmasq = Service::start(&mut dnsmasq, directory.join("dnsmasq.log"));
    wait_answer(namespace, (listen, 53).into(), "www.example.test", &dnsmasq);

    dnsmasq
}

/// What a resolver with certificates is called.
pub(crate) const SERVER_NAME: &str = "dns.infra.test";

/// What somebody is called who has no certificate, but the address of one who has.
pub(crate) const IMPOSTOR: &str = "impostor.infra.test";

/// An authority of the test's own, and a server's certificate by it.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificates {
    pub(crate) fn create(directory: &Path) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let mut server = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let cert = server.signed_by(&key, &issuer).unwrap();
        let place = |name: &str, contents: String| {
            let path = directory.join(name);
            private_file(&path, contents.as_bytes());
            path
        };

        Self {
            ca: place("ca.pem", ca.pem()),
            cert: place("dns.pem", cert.pem()),
            key: place("dns.key", key.serialize_pem()),
        }
    }
}

/// Waits until a server answers.
fn wait_answer(namespace: &Namespace, server: SocketAddr, name: &str, service: &Service) {
    let query = Query::new(&Name::parse(name).unwrap(), RecordType::A).to_upstream(7, false);
    let ask = || {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(server).ok()?;
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .ok()?;
        socket.send(&query).ok()?;
        let mut answer = [0; 1_500];
        let len = socket.recv(&mut answer).ok()?;
        // No error, and an answer.
        (answer[..len].get(3)? & 0xf == 0 && answer[7] > 0).then_some(())
    };
    let answered = wait_for(PATIENCE, || run_in(namespace, ask).unwrap());
    assert!(answered.is_some(), "{server}: {}", service.log());
}
