//! The API as it is documented, held against the server.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

use serde_json::Value;

#[test]
fn the_document_of_the_api_is_what_the_server_says_of_itself() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let generated = vxlane::api::server::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("VXLANE_WRITE").is_some() {
        fs::write(&file, &generated).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap();
    assert!(written == generated, "docs/openapi.json is old: run this test again with VXLANE_WRITE=1");
    let text = fs::read_to_string(file.with_file_name("api.md")).unwrap();
    let document: Value = serde_json::from_str(&generated).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let row = format!("`{} {path}`", method.to_uppercase());
            assert!(text.contains(&row), "docs/api.md does not have {row}");
        }
    }
}
