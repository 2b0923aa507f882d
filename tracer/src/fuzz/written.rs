//! Lines written to memory and read back, each held against the schema.

use std::{
    fs::File,
    io::{Read, Seek},
    os::fd::{FromRawFd, OwnedFd},
    sync::LazyLock,
    time::Duration,
};

use serde_json::Value;

use crate::emit::{
    Lines,
    schema::SCHEMA,
    writer::{QUEUE_BYTES, Sink, Target},
};

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    jsonschema::draft202012::new(&schema).expect("the schema is one")
});

/// What lines are written to.
pub(crate) struct Written(File);

impl Written {
    pub(crate) fn begin() -> (Self, Lines) {
        let file = memory_file();
        let target = Target::from_fd(OwnedFd::from(file.try_clone().expect("a second descriptor")), "memory");
        let sink = Sink::start(target.expect("a file"), QUEUE_BYTES).expect("a thread");
        (Self(file), Lines::new(sink))
    }

    /// All lines: none is dropped, and each is as the schema says.
    pub(crate) fn end(self, lines: Lines) -> Vec<Value> {
        let totals = lines.finish(Duration::from_secs(20));
        assert_eq!(totals.dropped_lines, 0);
        let values = self.values();
        assert_eq!(values.len() as u64, totals.lines);
        values
    }

    /// The same, of lines that are finished already.
    pub(crate) fn values(mut self) -> Vec<Value> {
        let mut text = String::new();
        self.0.rewind().expect("it can seek");
        self.0.read_to_string(&mut text).expect("UTF-8");
        text.lines().map(value).collect()
    }
}

fn value(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).expect("JSON");
    if !VALIDATOR.is_valid(&value) {
        let errors: Vec<String> = VALIDATOR.iter_errors(&value).map(|error| error.to_string()).collect();
        panic!("{errors:?}\n{line}");
    }
    value
}

fn memory_file() -> File {
    // SAFETY: the name ends with NUL; the descriptor is new and nobody else's.
    unsafe {
        let fd = libc::memfd_create(c"lines".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    }
}
