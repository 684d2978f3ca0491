//! `gapless demo`.
mod chart;
mod page;
mod page_chart;
mod paint;
mod receipt;
mod reconcile;
mod screen;
mod seen;
mod table;
mod timeline;
mod verdict;
