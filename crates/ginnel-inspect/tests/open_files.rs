//! The open file table against what was really opened and duplicated.

use ginnel_inspect::descriptors::DescriptorTable;
use ginnel_inspect::open_files::{OpenFile, Reference, is_same_open_file, open_files};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// One file opened often and duplicated unevenly: by link text and inode all look the same.
#[test]
fn opens_are_told_from_duplicates() {
    let pid = std::process::id() as i32;
    let opened: Vec<File> = (0..60).map(|_| File::open("/etc/passwd").unwrap()).collect();
    let duplicates: Vec<(usize, File)> = (0..200)
        .map(|number| number * 37 % opened.len() / (1 + number % 5))
        .map(|of| (of, opened[of].try_clone().unwrap()))
        .collect();

    let mut expected: BTreeMap<usize, Vec<i32>> =
        opened.iter().enumerate().map(|(number, file)| (number, vec![file.as_raw_fd()])).collect();
    for (of, file) in &duplicates {
        expected.get_mut(of).unwrap().push(file.as_raw_fd());
    }

    let files = open_files(&[DescriptorTable::read(pid).unwrap()], &[]).unwrap();
    for references in expected.values_mut() {
        references.sort_unstable();
        let first = Reference { pid, fd: references[0] };
        let file = files.iter().find(|file| file.references.contains(&first)).unwrap();
        assert_eq!(file.references.iter().map(|reference| reference.fd).collect::<Vec<_>>(), *references);
        assert_eq!(file.object, "/etc/passwd");
    }
    let references = |number: usize| Reference { pid, fd: opened[number].as_raw_fd() };
    assert!(!is_same_open_file(references(0), references(1)).unwrap());
    assert!(is_same_open_file(references(0), references(0)).unwrap());
}

#[test]
fn description_is_shared_across_processes() {
    let file = File::open("/etc/passwd").unwrap();
    let other = File::open("/etc/passwd").unwrap();
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(OwnedFd::from(file.try_clone().unwrap())))
        .spawn()
        .unwrap();
    let (own, its) = (std::process::id() as i32, child.id() as i32);
    let tables = [own, its].map(DescriptorTable::read).map(Result::unwrap);
    let files = open_files(&tables, &[]).unwrap();
    let seen_from_the_child = open_files(&tables[1..], &tables[..1]).unwrap();
    let seen_from_us = open_files(&tables[..1], &tables[1..]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    fn find(files: &[OpenFile], pid: i32, fd: i32) -> &OpenFile {
        files.iter().find(|file| file.references.contains(&Reference { pid, fd })).unwrap()
    }
    let shared = find(&files, its, 0);
    assert!(shared.references.contains(&Reference { pid: own, fd: file.as_raw_fd() }));
    assert!(!shared.references.contains(&Reference { pid: own, fd: other.as_raw_fd() }));
    assert!(find(&seen_from_the_child, its, 0).outside);
    assert!(find(&seen_from_us, own, file.as_raw_fd()).outside);
    assert!(!find(&seen_from_us, own, other.as_raw_fd()).outside);
}

/// Tables that were read before descriptors closed: these are left out, wherever they come, and the rest is right.
#[test]
fn descriptors_that_closed_since_are_left_out() {
    let pid = std::process::id() as i32;
    let (file, other) = (File::open("/proc/self/status").unwrap(), File::open("/proc/self/status").unwrap());
    let table = DescriptorTable::read(pid).unwrap();
    // No test opens so many files: these numbers are closed.
    let table_of = |numbers: [i32; 3]| DescriptorTable {
        pid,
        descriptors: numbers.map(|fd| (fd, table.descriptors[&file.as_raw_fd()].clone())).into(),
    };
    let open = [file.as_raw_fd(), other.as_raw_fd()];
    let closed = [100_000, 100_001, 100_002];

    assert_eq!(open_files(&[table_of(closed)], &[]).unwrap(), []);
    let after = [table_of([open[0], open[1], closed[0]]), table_of(closed)];
    let before = [table_of(closed), table_of([open[0], open[1], closed[0]])];
    for tables in [after, before] {
        let files = open_files(&tables, &[table_of(closed)]).unwrap();
        assert_eq!(files.len(), 2);
        for (file, fd) in files.iter().zip(open) {
            assert_eq!(file.references, [Reference { pid, fd }]);
            assert!(!file.outside);
        }
    }
}
