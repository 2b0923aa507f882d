use super::*;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(20);

fn piped(limit_bytes: usize) -> (Sink, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let target = Target::from_fd(OwnedFd::from(writer), "pipe").unwrap();
    (Sink::start(target, limit_bytes).unwrap(), reader)
}

/// A path for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-writer-{}-{name}", std::process::id()));
        fs::remove_file(&path).ok();
        Self(path)
    }

    fn sink(&self) -> Sink {
        Sink::start(Target::append(&self.0).unwrap(), QUEUE_BYTES).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn wait_for_end(sink: &Sink) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let future = sink.until_ended();
    runtime.block_on(async { tokio::time::timeout(LIMIT, future).await }).expect("writing ends")
}

#[test]
fn lines_arrive_in_order_without_finish() {
    let (sink, reader) = piped(QUEUE_BYTES);
    let mut reader = BufReader::new(reader);
    for number in 0..3 {
        assert!(sink.send(number.to_string().as_bytes()));
        let sent = Instant::now();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{number}\n"));
        assert!(sent.elapsed() < Duration::from_secs(5));
    }
    let totals = sink.finish(LIMIT);
    assert_eq!(totals, Totals { bytes: 6, lines: 3, dropped_lines: 0, dropped_bytes: 0 });
}

#[test]
fn many_lines_of_many_sizes_arrive_whole() {
    let (sink, mut reader) = piped(QUEUE_BYTES);
    let collect = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    let mut expected = Vec::new();
    for number in 0..2000_usize {
        let line = vec![b'a' + (number % 26) as u8; number * 37 % 9000];
        assert!(sink.send(&line));
        expected.extend_from_slice(&line);
        expected.push(b'\n');
    }
    let totals = sink.finish(LIMIT);
    assert_eq!((totals.lines, totals.bytes, totals.dropped_lines), (2000, expected.len() as u64, 0));
    assert!(collect.join().unwrap() == expected);
}

#[test]
fn a_stuck_reader_costs_lines_but_holds_nobody_up() {
    let (sink, mut reader) = piped(300_000);
    let line = [b'x'; 999];
    let began = Instant::now();
    let accepted = (0..1000).filter(|_| sink.send(&line)).count();
    assert!(accepted < 1000);
    assert!(sink.send_reserved(b"loss"));
    let totals = sink.finish(Duration::from_millis(200));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(totals.lines + totals.dropped_lines, 1001);
    // What did arrive is whole lines, and as many as were counted.
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len() as u64, totals.bytes);
    assert!(all.chunks(1000).all(|read| read.len() == 1000 && read[999] == b'\n'));
}

#[test]
fn a_reader_that_goes_away_ends_quietly() {
    let (sink, reader) = piped(QUEUE_BYTES);
    assert_eq!(sink.ended(), None);
    drop(reader);
    sink.send(b"nobody reads this");
    assert_eq!(wait_for_end(&sink), Ended::ReaderGone);
    assert_eq!(sink.ended(), Some(Ended::ReaderGone));
    assert!(!sink.send(b"more"));
    let totals = sink.finish(LIMIT);
    assert_eq!((totals.lines, totals.dropped_lines), (0, 2));
}

#[test]
fn a_reader_that_goes_away_is_noticed_in_silence() {
    let (sink, reader) = piped(QUEUE_BYTES);
    drop(reader);
    assert_eq!(wait_for_end(&sink), Ended::ReaderGone);
}

#[test]
fn a_full_device_is_an_error_with_a_remedy() {
    let sink = Sink::start(Target::append(Path::new("/dev/full")).unwrap(), QUEUE_BYTES).unwrap();
    sink.send(b"{}");
    let Ended::Failed(message) = wait_for_end(&sink) else { panic!("a failure") };
    assert!(message.starts_with("cannot write to /dev/full: No space left on device"), "{message}");
    assert!(message.ends_with("with --output"), "{message}");
}

#[test]
fn a_file_is_appended_to_and_private() {
    let scratch = Scratch::new("append");
    for line in [b"first", b"again"] {
        let sink = scratch.sink();
        sink.send(line);
        assert_eq!(sink.finish(LIMIT).lines, 1);
    }
    assert_eq!(fs::read(&scratch.0).unwrap(), b"first\nagain\n");
    assert_eq!(fs::metadata(&scratch.0).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_cut_last_line_does_not_swallow_the_first_new_one() {
    let scratch = Scratch::new("cut");
    fs::write(&scratch.0, b"{}\n{\"cut").unwrap();
    let sink = scratch.sink();
    sink.send(b"{}");
    sink.finish(LIMIT);
    assert_eq!(fs::read(&scratch.0).unwrap(), b"{}\n{\"cut\n{}\n");
}

#[test]
fn the_beginning_of_an_unfinished_line_is_taken_back() {
    let scratch = Scratch::new("take-back");
    let mut target = Target::append(&scratch.0).unwrap();
    target.write(b"{}\n{\"hal").unwrap();
    target.take_back(5);
    assert_eq!(fs::read(&scratch.0).unwrap(), b"{}\n");
    // Not when the end is someone else's.
    target.write(b"{\"ha").unwrap();
    let mut other = File::options().append(true).open(&scratch.0).unwrap();
    std::io::Write::write_all(&mut other, b"other").unwrap();
    target.take_back(4);
    assert_eq!(fs::read(&scratch.0).unwrap(), b"{}\n{\"haother");
}

#[test]
fn a_file_that_cannot_be_opened_says_which_and_why() {
    let error =
        format!("{:#}", anyhow::Error::from(Target::append(Path::new("/nonexistent/x")).unwrap_err()));
    assert!(error.contains("/nonexistent/x") && error.contains("No such file"), "{error}");
}

#[test]
fn a_dropped_sink_still_writes_what_it_holds() {
    let (sink, mut reader) = piped(QUEUE_BYTES);
    sink.send(b"last words");
    drop(sink);
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "last words\n");
}
