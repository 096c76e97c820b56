//! `cargo xtask ebpf`: builds the BPF programs, reproducibly.
//!
//! The objects are checked in beside their sources, so that `cargo build` needs neither the BPF
//! linker nor the source of the standard library. Their bytes depend on the sources, the lock
//! file, the compiler and the linker, and on nothing else: paths are mapped away, and debugging
//! sections are stripped (BTF stays).

use crate::repo;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The linker `setup --ebpf` installs. It uses the LLVM of the Rust toolchain.
pub(crate) const BPF_LINKER: &str = "0.10.3";

/// Folders of `ebpf`, each with a workspace of its own.
pub(crate) const PROGRAMS: &[&str] = &["express", "steer"];
const TARGET: &str = "bpfel-unknown-none";

/// How the names of Rust's functions begin.
const MANGLED: &[u8] = b"_RNv";

#[derive(Args)]
pub(crate) struct Ebpf {
    /// Build apart and fail where a checked-in object is not what its source gives
    #[arg(long)]
    pub(crate) check: bool,
}

impl Ebpf {
    pub(crate) fn run(self) -> Result<()> {
        let toolchain = Toolchain::find()?;
        for program in PROGRAMS {
            let source = repo::root().join("ebpf").join(program);
            let object = source.join(format!("{program}.o"));
            let made_with = source.join(format!("{program}.o.made-with"));
            let built = toolchain.build(program, &source)?;
            if self.check {
                check(&built, &object, &made_with, &toolchain)?;
            } else {
                fs::copy(&built, &object).with_context(|| format!("{}", object.display()))?;
                fs::write(&made_with, format!("{}\n", toolchain.version))?;
                println!("{} ({})", object.display(), toolchain.version);
            }
        }
        Ok(())
    }
}

fn is_of_profile(variable: &OsStr) -> bool {
    variable.to_string_lossy().starts_with("CARGO_PROFILE_")
}

fn check(built: &Path, object: &Path, made_with: &Path, toolchain: &Toolchain) -> Result<()> {
    let theirs = fs::read(object).with_context(|| format!("{}", object.display()))?;
    if fs::read(built)? == theirs {
        println!("{} is what its source gives", object.display());
        return Ok(());
    }
    let recorded = fs::read_to_string(made_with).unwrap_or_default();
    bail!(
        "{} is not what its source gives: run `cargo xtask ebpf` and commit the result \
         (it was made with {}; here is {})",
        object.display(),
        recorded.trim(),
        toolchain.version
    )
}

/// A compiler with the source of its standard library, the linker and the stripping tool.
struct Toolchain {
    rustc: PathBuf,
    library: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
    /// Holds the LLVM that linker and objcopy load.
    llvm_dir: PathBuf,
    /// What the bytes of an object depend on besides its source, as recorded beside it.
    version: String,
}

impl Toolchain {
    fn find() -> Result<Self> {
        let active = Path::new(&env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).to_owned();
        let active_root = sysroot(&active)?;
        let (rustc, library) = [Path::new("/usr/bin/rustc"), &active]
            .into_iter()
            .find_map(|rustc| Some((rustc.to_owned(), library_source(rustc)?)))
            .context(
                "no compiler here has the source of the standard library: \
                 run `cargo xtask setup --ebpf`, or `rustup component add rust-src`",
            )?;
        let linker = repo::tools_dir().join("bin/bpf-linker");
        ensure!(linker.exists(), "no bpf-linker in {}: run `cargo xtask setup --ebpf`", linker.display());
        let compiled_by = repo::first_line(Command::new(&rustc).arg("--version"))?;
        let release = compiled_by.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Ok(Self {
            objcopy: objcopy(&active_root)?,
            llvm_dir: active_root.join("lib"),
            version: format!("{release}, bpf-linker {BPF_LINKER}"),
            rustc,
            library,
            linker,
        })
    }

    /// Compiles, links and strips one program; returns where the object is.
    fn build(&self, program: &str, source: &Path) -> Result<PathBuf> {
        let out = repo::target_dir().join("ebpf");
        // Small arrays are set and copied in place, by words: a call to `memset` goes byte by byte.
        let link = ["-Clink-arg=--btf", "-Clink-arg=--disable-expand-memcpy-in-order"].map(OsString::from);
        let flags = [link.to_vec(), self.remaps()?].concat();
        let mut cargo = repo::cargo();
        // What somebody has set for builds of his own machine would change the object.
        env::vars_os().map(|(name, _)| name).filter(|name| is_of_profile(name)).for_each(|name| {
            cargo.env_remove(name);
        });
        repo::run(
            cargo
                .current_dir(source)
                .args(["build", "--quiet", "--release", "--locked", "-Zbuild-std=core"])
                .args(["--target", TARGET])
                .env_remove("RUSTFLAGS")
                .env_remove("RUSTUP_TOOLCHAIN")
                .env("CARGO_TARGET_DIR", &out)
                .env("RUSTC", &self.rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", &self.llvm_dir)
                .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
                .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f"))),
        )?;
        let linked = out.join(TARGET).join("release").join(format!("vxlane-{program}"));
        let stripped = out.join(format!("{program}.o"));
        repo::run(
            Command::new(&self.objcopy)
                .env("LD_LIBRARY_PATH", &self.llvm_dir)
                .arg("--strip-debug")
                .args([&linked, &stripped]),
        )?;
        let bytes = fs::read(&stripped).with_context(|| format!("{}", stripped.display()))?;
        ensure!(
            !bytes.windows(MANGLED.len()).any(|window| window == MANGLED),
            "{program} has a function beside its programs, whose name depends on the path that this is built in: \
             have it inlined"
        );
        Ok(stripped)
    }

    /// BTF holds the path of every source file: the machine's own part of each is mapped away.
    fn remaps(&self) -> Result<Vec<OsString>> {
        let mut pairs = vec![
            (repo::root().join("ebpf"), "ebpf"),
            (self.library.clone(), "library"),
            (self.library.canonicalize()?, "library"),
        ];
        let registries = cargo_home()?.join("registry/src");
        for registry in fs::read_dir(&registries).into_iter().flatten() {
            pairs.push((registry?.path(), "crates"));
        }
        let flag = |(from, to): (PathBuf, &str)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flag
        };
        Ok(pairs.into_iter().map(flag).collect())
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Where `rustc` keeps the source of its standard library, when it has it.
pub(crate) fn library_source(rustc: &Path) -> Option<PathBuf> {
    let library = sysroot(rustc).ok()?.join("lib/rustlib/src/rust/library");
    library.join("core/src/lib.rs").exists().then_some(library)
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(repo::first_line(Command::new(rustc).args(["--print", "sysroot"]))?.into())
}

/// The toolchain's own objcopy: the system's does not know BPF.
fn objcopy(sysroot: &Path) -> Result<PathBuf> {
    let hosts = fs::read_dir(sysroot.join("lib/rustlib"))?;
    hosts
        .filter_map(|host| Some(host.ok()?.path().join("bin/rust-objcopy")))
        .find(|objcopy| objcopy.exists())
        .with_context(|| format!("no rust-objcopy below {}", sysroot.display()))
}
