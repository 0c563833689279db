//! A load generator, with which the Python scripts beside it ask a server. Prints one JSON line.
//!
//!     cargo bench --bench load -- ADDRESS SECONDS CONNECTIONS REQUESTS_FILE [RATE]
//!
//! Every line of the file is one request, sent by POST: a path, a JSON body, and any number of headers, with tabs between them. Each connection is a
//! thread that walks the shuffled lines from a place of its own. Without RATE it sends the next request as soon as the
//! last one is answered: saturation. With RATE all connections together send that many requests a second, and latency
//! counts from the moment when a request was due, so that its wait for a free connection is not hidden. The first fifth
//! of the time warms up and is not counted. `requests` are those answered by 200, `errors` all others. `completed_per_second` counts
//! what was answered by 200 within the counted time, whenever it was due.

use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

type Failure = Box<dyn Error + Send + Sync>;

const SEED: u64 = 1;
/// The share of the time that is not counted.
const WARM: f64 = 0.2;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all connections go by.
struct Plan {
    address: String,
    requests: Vec<Vec<u8>>,
    start: Instant,
    /// From here on is counted.
    warm: Instant,
    end: Instant,
    rate: Option<f64>,
    /// Requests that were given out; only with a rate.
    given: AtomicU64,
}

#[derive(Default)]
struct Counted {
    /// Milliseconds.
    latencies: Vec<f64>,
    /// Answers by 200 within the counted time.
    completed: u64,
    errors: u64,
    first_error: Option<String>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// The server ends it after this answer.
    closing: bool,
    /// Of the last answer.
    body: Vec<u8>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [address, seconds, connections, file, rest @ ..] = arguments.as_slice() else {
        return Err("ADDRESS SECONDS CONNECTIONS REQUESTS_FILE [RATE]".into());
    };
    let seconds: f64 = seconds.parse()?;
    let connections: usize = connections.parse()?;
    let rate: Option<f64> = rest.first().map(|rate| rate.parse()).transpose()?;
    if !seconds.is_finite() || seconds <= 0.0 || connections == 0 || rate.is_some_and(|rate| rate <= 0.0) {
        return Err("SECONDS, CONNECTIONS and RATE must be above 0".into());
    }
    let requests = read(file, address)?;
    let (start, time) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (warm, end) = (start + time.mul_f64(WARM), start + time);
    let plan = Plan { address: address.clone(), requests, start, warm, end, rate, given: AtomicU64::new(0) };
    let counted: Result<Vec<Counted>, Failure> = thread::scope(|scope| {
        let plan = &plan;
        let walkers: Vec<_> = (0..connections).map(|number| scope.spawn(move || plan.walk(number as u64))).collect();
        walkers.into_iter().map(|walker| walker.join().map_err(|_| "a connection's thread panicked")?).collect()
    });
    let line = summary(&counted?, (end - warm).as_secs_f64())?;
    #[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
    {
        println!("{line}");
    }
    Ok(())
}

impl Plan {
    fn walk(&self, number: u64) -> Result<Counted, Failure> {
        let mut connection = self.connect()?;
        let mut counted = Counted::default();
        let mut place = mixed(SEED ^ mixed(number)) as usize % self.requests.len();
        while let Some(due) = self.due() {
            let asked = connection.ask(&self.requests[place]);
            place = (place + 1) % self.requests.len();
            let done = Instant::now();
            counted.completed += u64::from(matches!(asked, Ok(200)) && (self.warm..self.end).contains(&done));
            if self.counts(due, done) {
                counted.add(done - due, &asked, &connection.body);
            }
            if asked.is_err() || connection.closing {
                connection = self.connect()?;
            }
        }
        Ok(counted)
    }

    fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.address).map_err(|error| format!("cannot connect to {}: {error}", self.address).into())
    }

    /// Waits for the moment of the next request; `None` once the time is over.
    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = match self.rate {
            None => now,
            Some(rate) => {
                let given = self.given.fetch_add(1, Ordering::Relaxed);
                self.start + Duration::from_secs_f64(given as f64 / rate)
            }
        };
        if due >= self.end {
            return None;
        }
        thread::sleep(due.saturating_duration_since(now));
        Some(due)
    }

    /// At saturation by when it was answered; else by when it was due, or slow answers at the end would be left out.
    fn counts(&self, due: Instant, done: Instant) -> bool {
        let moment = if self.rate.is_some() { due } else { done };
        (self.warm..self.end).contains(&moment)
    }
}

impl Counted {
    fn add(&mut self, latency: Duration, asked: &io::Result<u16>, body: &[u8]) {
        let error = match asked {
            Ok(200) => return self.latencies.push(latency.as_secs_f64() * 1e3),
            Ok(status) => format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)])),
            Err(error) => error.to_string(),
        };
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), closing: false, body: Vec::new() })
    }

    /// Sends a request and reads the whole answer; its status.
    fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.body.clear();
        self.stream.get_mut().write_all(request)?;
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| broken("the answer has no status"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                None => break,
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(("transfer-encoding", value)) => chunked = value.ends_with("chunked"),
                Some(("connection", value)) => self.closing = value == "close",
                Some(_) => {}
            }
        }
        match length {
            _ if chunked => self.chunks()?,
            Some(length) => self.take(length)?,
            None => return Err(broken("the answer says neither its length nor that it comes in chunks")),
        }
        Ok(status)
    }

    fn chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| broken("a chunk has no size"))?;
            if size == 0 {
                break;
            }
            self.take(size)?;
            self.line()?;
        }
        // What trails the last chunk ends with an empty line.
        while !self.line()?.is_empty() {}
        Ok(())
    }

    fn take(&mut self, length: u64) -> io::Result<()> {
        let taken = (&mut self.stream).take(length).read_to_end(&mut self.body)?;
        if taken as u64 == length { Ok(()) } else { Err(broken("the answer was cut off")) }
    }

    /// Without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(broken("the server closed the connection")),
            _ => Ok(line.trim_end().to_string()),
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The file's requests as they are sent, shuffled.
fn read(file: &str, address: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let mut requests = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (path, body) = line.split_once('\t').ok_or_else(|| format!("{file}:{}: there is no tab", index + 1))?;
        let (body, headers) = body.split_once('\t').unwrap_or((body, ""));
        let headers: String = headers.split_terminator('\t').map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{headers}");
        requests.push(format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes());
    }
    if requests.is_empty() {
        return Err(format!("{file} holds no requests").into());
    }
    let mut seed = SEED;
    for last in (1..requests.len()).rev() {
        seed = mixed(seed);
        requests.swap(last, seed as usize % (last + 1));
    }
    Ok(requests)
}

/// The next of a series of random numbers (splitmix64).
fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

fn summary(counted: &[Counted], seconds: f64) -> Result<String, Failure> {
    let errors: u64 = counted.iter().map(|one| one.errors).sum();
    let first_error = counted.iter().find_map(|one| one.first_error.as_deref());
    let mut latencies: Vec<f64> = counted.iter().flat_map(|one| one.latencies.iter().copied()).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    if let Some(error) = first_error {
        #[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
        {
            eprintln!("{errors} requests failed, the first with: {error}");
        }
    }
    let requests = latencies.len();
    let Some(max) = latencies.last() else { return Err("no request was answered by 200 in the counted time".into()) };
    let at = |share: f64| latencies[((requests as f64 * share).ceil() as usize).clamp(1, requests) - 1];
    let rate = requests as f64 / seconds;
    let completed = counted.iter().map(|one| one.completed).sum::<u64>() as f64 / seconds;
    let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
    Ok(format!(
        "{{\"requests\": {requests}, \"errors\": {errors}, \"seconds\": {seconds:.3}, \
         \"requests_per_second\": {rate:.2}, \"completed_per_second\": {completed:.2}, \"p50_ms\": {p50:.3}, \"p90_ms\": {p90:.3}, \"p99_ms\": {p99:.3}, \
         \"max_ms\": {max:.3}}}"
    ))
}
