//! Writes the JSON Schema of every kind to `deploy/schemas`: `cargo run -p records --example schemas`.

use std::path::Path;
use std::{fs, io};

use records::Kind;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/schemas");
    fs::create_dir_all(&folder)?;
    for kind in Kind::ALL {
        fs::write(folder.join(format!("{kind}.json")), format!("{:#}\n", kind.schema()))?;
    }
    Ok(())
}
