//! A link between the operator and a server that can be cut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Passes connections on until it is dropped.
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn close_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Relay {
    /// To a server at `host:port`.
    pub(crate) fn to(server: &str) -> Relay {
        let server_address = server.to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if Arc::strong_count(&shared) == 1 {
                    return;
                }
                if shared.is_cut.load(Ordering::Acquire) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server_address) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    shared.open.lock().unwrap().push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let mut bytes = vec![0; 65536];
                        while let Ok(length @ 1..) = from.read(&mut bytes) {
                            if to.write_all(&bytes[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Relay { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection; new ones come to nothing.
    pub(crate) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Release);
        self.state.close_all();
    }

    pub(crate) fn mend(&self) {
        self.state.is_cut.store(false, Ordering::Release);
    }

    /// Ends every connection; new ones are passed on.
    pub(crate) fn drop_connections(&self) {
        self.state.close_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        // The listener's thread looks whether anybody is left.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
