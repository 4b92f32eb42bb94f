//! Names and their folders; and a control socket that is asked nonsense.

use super::*;
use crate::lab::life::Life;
use crate::layout::{Ground, Layout, Shape, Store};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use twinsite_model::Profile;

fn layout() -> Layout {
    Layout::on(Ground::Lab, 0, Profile::Wan, &Shape::default(), Store::Embedded)
}

fn name(name: &str) -> LabName {
    name.parse().unwrap()
}

/// A process that has ended.
fn ended() -> Life {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let life = Life::of(child.id()).unwrap();
    life.signal(Signal::KILL).unwrap();
    child.wait().unwrap();
    life
}

#[test]
fn a_name_is_taken_once_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::at(folder.path().join("labs"));
    assert_eq!(register.labs().unwrap(), []);
    let claim = register.claim(&name("one"), &layout()).unwrap();
    let found = register.find(&name("one")).unwrap();
    assert!(found.is_kept() && found == *claim.found());
    assert_eq!(found.record.as_ref().unwrap().host("gra-1").unwrap().address.to_string(), "10.88.1.1");
    assert_eq!(fs::metadata(found.folder()).unwrap().permissions().mode() & 0o777, 0o700);

    let taken = register.claim(&name("one"), &layout()).unwrap_err().to_string();
    assert!(taken.contains("up already") && taken.contains(&std::process::id().to_string()), "{taken}");
    assert_eq!(found.remove().unwrap(), Removed::default(), "whose process lives is not removed");
    let other = register.claim(&name("two"), &layout()).unwrap();
    let unknown = register.find(&name("three")).unwrap_err().to_string();
    assert!(unknown.ends_with("there are: one, two"), "{unknown}");

    fs::write(claim.found().control(), "").unwrap();
    drop(register.open_log(&name("one")).unwrap());
    drop(claim);
    assert!(!found.folder().exists() && !found.log().exists());
    assert_eq!(register.labs().unwrap(), [other.found().clone()]);
}

/// What a killed process has left under a name.
fn leave(register: &Register, called: &LabName) -> Found {
    let claim = register.claim(called, &layout()).unwrap();
    let mut record = serde_json::to_value(claim.record()).unwrap();
    let folder = claim.found().folder();
    drop(claim);
    record["keeper"] = serde_json::to_value(ended()).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lab.json"), record.to_string()).unwrap();
    register.find(called).unwrap()
}

#[test]
fn what_a_killed_process_has_left_is_found_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::at(folder.path());
    let found = leave(&register, &name("one"));
    assert!(!found.is_kept());
    assert_eq!(found.remove().unwrap(), Removed::default(), "it had no namespaces");
    assert!(!found.folder().exists());
    assert_eq!(found.remove().unwrap(), Removed::default(), "and again, although nothing is left");

    let found = leave(&register, &name("one"));
    let claim = register.claim(&name("one"), &layout()).unwrap();
    assert!(claim.found().is_kept());
    assert_eq!(found.remove().unwrap(), Removed::default());
    assert!(claim.found().folder().exists(), "what is another one's by now is not removed");
}

#[test]
fn a_record_that_makes_no_sense_is_nobodys_to_remove() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::at(folder.path());
    let found = leave(&register, &name("one"));
    let path = found.folder().join("lab.json");
    let good: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut newer = good.clone();
    newer["version"] = json!(2);
    let mut richer = good;
    richer["color"] = json!("blue");
    for text in [String::new(), "{".to_owned(), newer.to_string(), richer.to_string()] {
        fs::write(&path, text).unwrap();
        let error = register.find(&name("one")).unwrap_err().to_string();
        assert!(error.contains("lab.json") && error.contains("another version"), "{error}");
        register.claim(&name("one"), &layout()).unwrap_err();
        found.remove().unwrap_err();
        assert!(path.exists());
    }
    // Killed before it noted anything: there is nothing else of it.
    fs::remove_file(&path).unwrap();
    assert!(register.claim(&name("one"), &layout()).is_ok());
}

/// Sends this and says no more; the answer.
fn say(control: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(control).unwrap();
    // Whoever sends too much is answered before all is read.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_the_control_socket_is_answered_and_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let mut socket = ControlSocket::listen(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let keeper = tokio::spawn(async move {
        let mut wishes = Vec::new();
        while let Some(asked) = socket.next().await {
            asked.answer.send(Answer::Done("done".to_owned())).unwrap();
            wishes.push(asked.wish.clone());
            if asked.wish == Wish::Down {
                break;
            }
        }
        wishes
    });
    let asking = tokio::task::spawn_blocking(move || {
        let long = vec![b'x'; 100_000];
        let nonsense: [&[u8]; 6] =
            [b"", b"\n", b"\xff\xfe\n", b"{\"version\":1,\"wish\":\"status\"}", b"[1,2]\n", &long];
        for bytes in nonsense {
            let reply = say(&path, bytes);
            assert!(reply["answer"]["refused"].is_string(), "{reply}");
        }
        // Who connects and says nothing keeps nobody from being heard.
        let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let done = Answer::Done("done".to_owned());
        assert_eq!(ask(&path, Wish::HealAll, Duration::from_secs(2)).unwrap(), done);
        assert_eq!(ask(&path, Wish::Down, Duration::from_secs(2)).unwrap(), done);
        drop(silent);
        path
    });
    let path = asking.await.unwrap();
    assert_eq!(keeper.await.unwrap(), [Wish::HealAll, Wish::Down], "and nothing of the nonsense");
    let gone = tokio::task::spawn_blocking(move || ask(&path, Wish::Status, Duration::from_secs(2)));
    let gone = gone.await.unwrap().unwrap_err().to_string();
    assert!(gone.contains("does not answer"), "{gone}");
}
