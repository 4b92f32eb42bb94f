//! The API's names follow one rule each (buf's STANDARD set), so that nobody has to look twice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::BTreeSet;
use twinsite_api::FILE_DESCRIPTOR_SET;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours: Vec<_> = set.file.into_iter().filter(|file| file.name().starts_with("twinsite/")).collect();
    assert!(ours.len() >= 8, "files are missing from the descriptor set");
    ours
}

fn is_camel(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

fn upper_snake(camel: &str) -> String {
    let mut upper = String::new();
    for (place, letter) in camel.char_indices() {
        if place > 0 && letter.is_ascii_uppercase() {
            upper.push('_');
        }
        upper.push(letter.to_ascii_uppercase());
    }
    upper
}

fn check_enum(of: &EnumDescriptorProto) {
    let prefix = upper_snake(of.name());
    for value in &of.value {
        assert!(
            value.name().starts_with(&format!("{prefix}_")),
            "{} does not begin with {prefix}_",
            value.name()
        );
    }
    let zero = of.value.iter().find(|value| value.number() == 0).unwrap();
    assert_eq!(zero.name(), format!("{prefix}_UNSPECIFIED"));
}

fn check_message(of: &DescriptorProto) {
    assert!(is_camel(of.name()), "message {}", of.name());
    let mut numbers = BTreeSet::new();
    for field in &of.field {
        assert!(is_snake(field.name()), "{}.{}", of.name(), field.name());
        assert!(numbers.insert(field.number()), "{}.{} uses a number twice", of.name(), field.name());
        let time_like = field.name().ends_with("_seconds") || field.name().ends_with("_time");
        assert!(
            !time_like,
            "{}.{}: durations and times are in milliseconds, and say `_ms`",
            of.name(),
            field.name()
        );
    }
    of.enum_type.iter().for_each(check_enum);
    of.nested_type.iter().for_each(check_message);
}

#[test]
fn packages_messages_and_enums() {
    for file in files() {
        assert_eq!(file.package(), "twinsite.v1", "{}", file.name());
        assert!(file.name().starts_with("twinsite/v1/"), "{}", file.name());
        assert_eq!(file.syntax(), "proto3");
        file.enum_type.iter().for_each(check_enum);
        file.message_type.iter().for_each(check_message);
    }
}

#[test]
fn services_and_their_calls() {
    let mut used = BTreeSet::new();
    for service in files().iter().flat_map(|file| &file.service) {
        assert!(service.name().ends_with("Service"), "{}", service.name());
        for method in &service.method {
            let name = method.name();
            assert!(is_camel(name));
            assert_eq!(method.input_type(), format!(".twinsite.v1.{name}Request"));
            assert_eq!(method.output_type(), format!(".twinsite.v1.{name}Response"));
            assert!(used.insert(name.to_owned()), "{name} is the name of two calls");
        }
    }
    assert!(used.len() >= 15, "{used:?}");
}

/// Every call that changes something can be repeated without being done twice.
#[test]
fn changes_carry_a_request_id() {
    let reads = [
        "GetState",
        "Watch",
        "Explain",
        "GetOperation",
        "ListOperations",
        "GetLedger",
        "ListMembers",
        "ListPins",
        "ListConnections",
        "ListDrills",
        "ListSpecs",
        "GetDrill",
    ];
    // Handing leadership over twice is handing it over.
    let repeatable = ["TransferLeadership"];
    let files = files();
    let messages: Vec<_> = files.iter().flat_map(|file| &file.message_type).collect();
    for method in files.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
        if reads.contains(&method.name()) || repeatable.contains(&method.name()) {
            continue;
        }
        let request = format!("{}Request", method.name());
        let message = messages.iter().find(|message| message.name() == request).unwrap();
        let mutation = message.field.iter().any(|field| field.type_name() == ".twinsite.v1.Mutation");
        assert!(mutation, "{request} carries no Mutation");
    }
}
