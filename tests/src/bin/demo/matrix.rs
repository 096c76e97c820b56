//! The containers of the demo, and the table of who reaches whom.

use std::fmt;

/// A container of the demo: one in each network on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    /// Index into [`HOSTS`].
    pub(crate) host: usize,
    /// Index into [`NETWORKS`].
    pub(crate) network: usize,
}

/// The hosts.
pub(crate) const HOSTS: [&str; 3] = ["A", "B", "C"];
/// The networks and their VNIs.
pub(crate) const NETWORKS: [(&str, u32); 2] = [("blue", 5000), ("green", 6000)];

impl Station {
    /// All six.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..NETWORKS.len()).flat_map(|network| (0..HOSTS.len()).map(move |host| Self { host, network }))
    }

    /// The last byte of its address, in IP and MAC alike: 1, 2, 3 in blue and 2, 3, 4 in green,
    /// so that some addresses exist in both networks and some in one.
    pub(crate) fn number(self) -> u8 {
        [1, 2, 3][self.host] + [0, 1][self.network]
    }
}

impl fmt::Display for Station {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", NETWORKS[self.network].0, HOSTS[self.host])
    }
}

/// Who answered when one station asked for the address of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    /// Who asked.
    pub(crate) from: Station,
    /// Whose address was asked for.
    pub(crate) to: Station,
    /// Who answered.
    pub(crate) answer: Option<Station>,
}

impl Cell {
    fn is_as_expected(&self) -> bool {
        if self.from.network == self.to.network {
            self.answer == Some(self.to)
        } else {
            // Nobody, or the namesake in one's own network.
            self.answer.is_none_or(|answer| answer.network == self.from.network)
        }
    }

    fn sign(&self) -> &'static str {
        let reached = self.answer == Some(self.to);
        match (reached, self.is_as_expected()) {
            _ if self.from == self.to => " ",
            (true, true) => "●",
            (false, true) => "·",
            (_, false) => "✗",
        }
    }
}

/// All cells.
#[derive(Debug)]
pub(crate) struct Matrix(pub(crate) Vec<Cell>);

impl Matrix {
    /// A sentence for each cell that is not what it must be.
    pub(crate) fn failures(&self) -> Vec<String> {
        let wrong = self.0.iter().filter(|cell| !cell.is_as_expected());
        let sentence = |cell: &Cell| {
            let answer = cell.answer.map_or("nobody".to_owned(), |station| station.to_string());
            format!("{} asked for the address of {} and {answer} answered", cell.from, cell.to)
        };
        wrong.map(sentence).collect()
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  from \\ to          ")?;
        for to in Station::all() {
            write!(out, "{:<9}", to.to_string())?;
        }
        writeln!(out)?;
        for from in Station::all() {
            write!(out, "  {:<8} 10.0.0.{}  ", from.to_string(), from.number())?;
            for cell in self.0.iter().filter(|cell| cell.from == from) {
                write!(out, "   {:<6}", cell.sign())?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
