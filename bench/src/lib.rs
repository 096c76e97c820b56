//! Rigs, generators and reports.
