//! Servers that others wrote.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};

use tempfile::TempDir;

use super::authority::{Authority, Validity};
use super::*;

#[tokio::test]
#[ignore = "needs unbound"]
async fn unbound_is_asked_by_every_carrier() {
    let unbound = Unbound::start();
    let mut rig = Rig::trusting(Some(unbound.authority.file.path()));
    let [plain, tls, https] = unbound.ports;
    let plain = Server::Plain(([127, 0, 0, 1], plain).into());
    let tls = Server::Tls {
        host: "127.0.0.1".into(),
        port: tls,
    };
    let https = Server::Https(format!("https://127.0.0.1:{https}/dns-query"));

    for (server, carrier) in [
        (&plain, Carrier::Udp),
        (&plain, Carrier::Tcp),
        (&tls, Carrier::Tcp),
        (&https, Carrier::Tcp),
    ] {
        for id in 0..100 {
            rig.start(id, server, carrier, query(1, "a.test"));
        }
        for _ in 0..100 {
            let bytes = rig.over().await.1.unwrap();
            let answer = Answer::parse(bytes).unwrap();
            let addresses: Vec<_> = answer.addresses().collect();
            assert_eq!(answer.id(), 1);
            assert_eq!(addresses, [(Ipv4Addr::new(192, 0, 2, 7).into(), 60)]);
        }
        // A denial is an answer like any other.
        let outcome = rig.ask(server, carrier, "none.test").await;
        let answer = Answer::parse(outcome.unwrap()).unwrap();
        assert_eq!(answer.rcode(), Rcode::NXDOMAIN);
    }

    let wrong = Server::Https(format!("{https}-elsewhere"));
    assert_failed(&rig.ask(&wrong, Carrier::Tcp, "a.test").await, "404");
}

/// The program, with a zone of its own; it ends with this.
struct Unbound {
    child: Child,
    /// What else it says.
    lines: Lines<BufReader<ChildStderr>>,
    authority: Authority,
    /// Of DNS, of DoT, of DoH.
    ports: [u16; 3],
    _files: TempDir,
}

impl Unbound {
    fn start() -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.certify("127.0.0.1", Validity::Current);
        let files = TempDir::new().unwrap();
        let folder = files.path().display();
        let ports = free_ports();
        let [plain, tls, https] = ports;
        std::fs::write(files.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(files.path().join("key.pem"), key.serialize_pem()).unwrap();
        let config = format!(
            r#"
server:
  interface: 127.0.0.1@{plain}
  interface: 127.0.0.1@{tls}
  interface: 127.0.0.1@{https}
  tls-port: {tls}
  https-port: {https}
  tls-service-pem: "{folder}/cert.pem"
  tls-service-key: "{folder}/key.pem"
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  module-config: "iterator"
  local-zone: "test." static
  local-data: "a.test. 60 IN A 192.0.2.7"
remote-control:
  control-enable: no
"#
        );
        let path = files.path().join("unbound.conf");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new("unbound")
            .args(["-d", "-c"])
            .arg(path)
            .stderr(Stdio::piped())
            .spawn()
            .expect("NOT TESTED: unbound can't be started; install the package `unbound`");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let is_ready = loop {
            let Some(Ok(line)) = lines.next() else {
                break false;
            };
            said.push_str(&line);
            said.push('\n');
            if line.contains("start of service") {
                break true;
            }
        };
        assert!(is_ready, "unbound has ended; it said:\n{said}");

        Self {
            child,
            lines,
            authority,
            ports,
            _files: files,
        }
    }
}
impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.lines.by_ref().map_while(Result::ok) {
                eprintln!("unbound: {line}");
            }
        }
    }
}

/// Ports that nobody listens to; all different, as all are held before one is let go.
fn free_ports() -> [u16; 3] {
    let held = [(); 3].map(|()| std::net::TcpListener::bind(ANY).unwrap());

    held.map(|listener| listener.local_addr().unwrap().port())
}
