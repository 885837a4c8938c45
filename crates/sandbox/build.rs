//! Builds the guest program, static and small, and hands it to the crate for embedding: belljar is one file.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    for place in ["src", "Cargo.toml"] {
        println!("cargo:rerun-if-changed=../guest/{place}");
        println!("cargo:rerun-if-changed=../protocol/{place}");
    }
    println!("cargo:rerun-if-changed=../../Cargo.lock");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("guest");
    let target = env::var("TARGET")?;
    let status = Command::new(env::var("CARGO")?)
        .args(["build", "--locked", "--quiet", "--profile", "guest", "--package", "guest", "--bin", "belljar-guest"])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&out)
        .current_dir(PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../.."))
        // Its flags are its own: static, and not what a lint or coverage run puts around the outer build.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_MAKEFLAGS")
        .status()?;
    if !status.success() {
        return Err("the guest program does not build; see the error above".into());
    }
    let program = out.join(target).join("guest/belljar-guest");
    println!("cargo:rustc-env=BELLJAR_GUEST_PROGRAM={}", program.display());
    Ok(())
}
