//! A way to the portal on which some things are never said.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use connlib_os::namespace::{Namespace, run_in};

/// Passes connections with the portal on, from inside its namespace and until this process ends, without the messages that
/// hold `unheard`. WebSocket in the clear (RFC 6455 §5.2); what a server says has no mask.
pub(crate) fn pass_on(
    namespace: &Namespace,
    listen: SocketAddr,
    portal: SocketAddr,
    unheard: &'static str,
) {
    let listener = run_in(namespace, || TcpListener::bind(listen))
        .unwrap()
        .unwrap();
    let namespace = run_in(namespace, Namespace::of_this_thread)
        .unwrap()
        .unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = run_in(&namespace, || TcpStream::connect(portal)).unwrap();
            let Ok(server) = server else {
                continue;
            };
            let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let (mut from, mut to) = up;
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                // Either end may go away at any time.
                let _ = pass_on_frames(&server, &client, unheard);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
}

fn pass_on_frames(mut from: &TcpStream, mut to: &TcpStream, unheard: &str) -> io::Result<()> {
    let mut byte = [0];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend(byte);
    }
    to.write_all(&head)?;
    loop {
        let mut frame = vec![0; 2];
        from.read_exact(&mut frame)?;
        let more = match frame[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        frame.resize(2 + more, 0);
        from.read_exact(&mut frame[2..])?;
        let len = match more {
            0 => frame[1].into(),
            _ => frame[2..]
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte)),
        };
        let head_len = frame.len();
        frame.resize(head_len + len, 0);
        from.read_exact(&mut frame[head_len..])?;
        if !String::from_utf8_lossy(&frame).contains(unheard) {
            to.write_all(&frame)?;
        }
    }
}
