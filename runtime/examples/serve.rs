//! How a program of one's own shares a model: a session for each thread, and every line that a TCP connection sends is
//! answered by a line. (What answers requests over HTTP, and decodes them side by side, is `t5 serve`.)
//! `cargo run --release -p t5-runtime --example serve -- 127.0.0.1:4650 4`, then
//! `echo 'translate English to German: Good morning.' | nc -N 127.0.0.1 4650`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use t5_runtime::{GenerateOptions, Model, Session, physical_cores};

/// Bytes of a line: what a client may ask for at once.
const LINE: u64 = 16 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:4650".to_owned());
    let threads = arguments.next().map_or(Ok(physical_cores()), |count| count.parse())?;
    let model = Model::pocket()?;
    let listener = TcpListener::bind(&address)?;
    eprintln!("listening on {}", listener.local_addr()?);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Weights are shared; a session has the buffers of one thread, allocated once.
                let mut session = model.session();
                loop {
                    let done = listener.accept().and_then(|(stream, _)| answer(&mut session, stream));
                    if let Err(error) = done {
                        eprintln!("a connection ended: {error}");
                    }
                }
            });
        }
    });
    Ok(())
}

/// Answers the lines of a connection until it ends.
fn answer(session: &mut Session, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let options = GenerateOptions::default();
    let mut line = Vec::new();
    while reader.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
        if line.len() as u64 == LINE && !line.ends_with(b"\n") {
            writeln!(stream, "error: expected lines of less than {LINE} bytes")?;
            stream.shutdown(Shutdown::Write)?;
            // Closed with bytes that nobody has read, the connection would be reset, and the answer may be lost.
            std::io::copy(&mut reader.take(64 * LINE), &mut std::io::sink())?;
            return Ok(());
        }
        // Errors are one sentence each; the session is good for the next request.
        let text = match session.generate(String::from_utf8_lossy(&line).trim_end(), &options) {
            Ok(generation) => generation.finish().remove(0).text,
            Err(error) => format!("error: {error}"),
        };
        writeln!(stream, "{}", text.replace('\n', " "))?;
        line.clear();
    }
    Ok(())
}
