use super::*;

/// A map of bytes to bytes, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
struct Map(std::collections::BTreeMap<u8, u8>);

impl Durable for Map {
    fn difference(&self, before: Option<&Self>, put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>)) {
        let empty = Self::default();
        let before = before.unwrap_or(&empty);
        for (key, value) in &self.0 {
            if before.0.get(key) != Some(value) {
                put(vec![*key], Some(vec![*value]));
            }
        }
        for key in before.0.keys().filter(|key| !self.0.contains_key(key)) {
            put(vec![*key], None);
        }
    }

    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String> {
        let mut map = Self::default();
        for (key, value) in rows {
            let (&[key], &[value]) = (&key[..], &value[..]) else {
                return Err("a row has the wrong length".to_owned());
            };
            map.0.insert(key, value);
        }
        Ok((!map.0.is_empty()).then_some(map))
    }
}

fn map(rows: &[(u8, u8)]) -> Map {
    Map(rows.iter().copied().collect())
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("node.redb")
    }

    fn open(&self) -> Result<Store, StorageError> {
        Store::open(&self.file(), "blue", NodeId(3))
    }

    fn save(&self, saves: &[(u16, Vec<Row>)]) {
        let (mut committer, progress) = self.open().unwrap().into_committer().unwrap();
        for (lease, rows) in saves {
            committer.save(*lease, rows.clone());
        }
        let last = committer.last();
        committer.finish();
        assert_eq!(progress.borrow().durable, last);
    }
}

//= SPEC TIME-3 test
#[test]
fn boots_are_counted_across_lives() {
    let dir = Dir::new();
    for boot in 1..=3 {
        let mut store = dir.open().unwrap();
        assert_eq!(store.boots(), boot - 1);
        assert_eq!(store.begin_boot(), Ok(boot));
    }
    let names: Vec<_> =
        fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["node.redb"], "no draft is left over");
}

//= SPEC LEASE-28 test
#[test]
fn what_is_saved_is_restored_by_lease() {
    let dir = Dir::new();
    let (first, second) = (map(&[(1, 10), (2, 20)]), map(&[(2, 21), (3, 30)]));
    dir.save(&[
        (0, Row::difference(None, &first)),
        (0, Row::difference(Some(&first), &second)),
        (0x0100, Row::difference(None, &first)),
    ]);
    let store = dir.open().unwrap();
    assert_eq!(store.restore(0), Ok(Some(second)));
    assert_eq!(store.restore(0x0100), Ok(Some(first)));
    assert_eq!(store.restore::<Map>(1), Ok(None));
}

#[test]
fn many_saves_share_one_transaction() {
    let dir = Dir::new();
    let (mut committer, progress) = dir.open().unwrap().into_committer().unwrap();
    for n in 0..200 {
        committer.save(0, Row::difference(None, &map(&[(n, n)])));
    }
    committer.finish();
    let progress = progress.borrow().clone();
    assert_eq!(progress.durable, 200);
    assert!(progress.commits < 200, "{progress:?}");
}

#[test]
fn a_dropped_committer_closes_the_file() {
    let dir = Dir::new();
    let (mut committer, progress) = dir.open().unwrap().into_committer().unwrap();
    for n in 0..200 {
        committer.save(0, Row::difference(None, &map(&[(n, n)])));
    }
    drop(committer);
    let durable = progress.borrow().durable;
    let restored = dir.open().unwrap().restore::<Map>(0).unwrap().unwrap_or_default();
    assert_eq!(restored.0.len() as u64, durable);
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let dir = Dir::new();
    let path = dir.file();
    let texts = ["", "x", "not a database\n", &"long ".repeat(5000)];
    for text in texts {
        fs::write(&path, text).unwrap();
        assert_eq!(dir.open().unwrap_err(), StorageError::NotADatabase { path: path.clone() });
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("meta");
    let db = Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(other).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    db.close().unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(dir.open().unwrap_err(), StorageError::Foreign { path: path.clone() });
    assert!(fs::read(&path).unwrap() == before, "a foreign database has been changed");
}

#[test]
fn another_cluster_or_node_is_refused() {
    let dir = Dir::new();
    drop(dir.open().unwrap());
    let path = dir.file();
    assert_eq!(
        Store::open(&path, "green", NodeId(3)).unwrap_err(),
        StorageError::WrongCluster {
            path: path.clone(),
            found: "blue".to_owned(),
            expected: "green".to_owned()
        }
    );
    assert_eq!(
        Store::open(&path, "blue", NodeId(4)).unwrap_err(),
        StorageError::WrongNode { path, found: 3, expected: 4 }
    );
}

#[test]
fn a_second_user_is_refused() {
    let dir = Dir::new();
    let store = dir.open().unwrap();
    assert_eq!(dir.open().unwrap_err(), StorageError::Locked { path: dir.file() });
    drop(store);
    dir.open().unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_an_io_error() {
    let dir = Dir::new();
    let error = Store::open(&dir.0.path().join("no/such/file"), "blue", NodeId(3)).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    let error = Store::open(dir.0.path(), "blue", NodeId(3)).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
}

fn tamper(dir: &Dir, change: impl FnOnce(&redb::WriteTransaction)) {
    drop(dir.open().unwrap());
    let db = Database::open(dir.file()).unwrap();
    let txn = db.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

#[test]
fn another_format_is_refused() {
    for found in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
        let dir = Dir::new();
        tamper(&dir, |txn| {
            let value = seal(b"version", &found.to_be_bytes());
            txn.open_table(META).unwrap().insert("version", value.as_slice()).unwrap();
        });
        assert_eq!(dir.open().unwrap_err(), StorageError::OtherFormat { path: dir.file(), found });
    }
}

#[test]
fn a_row_that_was_changed_or_moved_is_refused() {
    let dir = Dir::new();
    dir.save(&[(0, Row::difference(None, &map(&[(1, 10)])))]);
    let sealed = seal(&row_key(0, KIND_ACTOR, &[1]), &[10]);
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (key, value) in [(1, changed), (2, sealed), (3, vec![1, 2, 3])] {
        let copy = Dir::new();
        fs::copy(dir.file(), copy.file()).unwrap();
        tamper(&copy, |txn| {
            let key = row_key(0, KIND_ACTOR, &[key]);
            txn.open_table(ROWS).unwrap().insert(key.as_slice(), value.as_slice()).unwrap();
        });
        let error = copy.open().unwrap().restore::<Map>(0).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn rows_that_the_storage_cannot_read_are_refused() {
    let dir = Dir::new();
    dir.save(&[(0, vec![Row { key: vec![1, 2], value: Some(vec![]) }])]);
    let error = dir.open().unwrap().restore::<Map>(0).unwrap_err();
    assert!(error.to_string().contains("wrong length"), "{error}");
}

#[test]
fn a_bit_that_flips_on_the_disk_is_found() {
    let dir = Dir::new();
    let value = b"a value that is easy to find in the file".to_vec();
    dir.save(&[(0, vec![Row { key: vec![1], value: Some(value.clone()) }])]);
    let mut bytes = fs::read(dir.file()).unwrap();
    let mut found = 0;
    for at in 0..bytes.len() - value.len() {
        if bytes[at..at + value.len()] == value[..] {
            bytes[at + 5] ^= 1;
            found += 1;
        }
    }
    assert!(found > 0);
    fs::write(dir.file(), bytes).unwrap();
    let error = dir.open().and_then(|store| store.reader().rows(0)).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}
