#include "memnode/ctl/hotset/hotset_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "memnode/load/plot.h"

namespace engram::ctl {
namespace {

namespace load = memnode::load;

std::string NameOf(const HitRateCurve& curve) {
  return curve.order == 0 ? "all orders" : fmt::format("{} tokens", curve.order);
}

std::string Percent(double share) { return fmt::format("{:.2f}", 100 * share); }

// Of one column's point: "counted / held out", in percent.
std::string Cell(const HitRateCurve& curve, const CurvePoint& point) {
  return fmt::format("{} / {}", Percent(point.seen),
                     curve.held_out_positions == 0 ? "-" : Percent(point.held_out));
}

std::string Row(const std::string& name, const std::vector<std::string>& cells) {
  std::string row = fmt::format("{:<22}", name);
  for (const std::string& cell : cells) row += fmt::format(" {:>16}", cell);
  return row + "\n";
}

std::string CurveTable(const std::vector<HitRateCurve>& curves) {
  std::vector<std::string> names, distinct, last;
  uint64_t most = 0;
  for (const HitRateCurve& curve : curves) {
    names.push_back(NameOf(curve));
    distinct.push_back(fmt::format("{}", curve.distinct));
    last.push_back(curve.points.empty() ? "" : Cell(curve, curve.points.back()));
    most = std::max(most, curve.distinct);
  }
  std::string text = Row("n-grams of", names) + Row("distinct", distinct);
  for (uint64_t top = 1; top <= most; top *= 10) {
    std::vector<std::string> cells;
    for (const HitRateCurve& curve : curves) {
      const auto point =
          std::find_if(curve.points.begin(), curve.points.end(),
                       [&](const CurvePoint& candidate) { return candidate.top == top; });
      cells.push_back(point == curve.points.end() ? "" : Cell(curve, *point));
    }
    text += Row(fmt::format("top {}", top), cells);
  }
  return text + Row("every one counted", last);
}

load::PlotPanel Panel(const Hotset& made, bool held_out) {
  load::PlotPanel panel;
  panel.title = held_out ? "Text held out" : "Text counted";
  panel.x_label = "most frequent n-grams of the text counted";
  panel.y_label = "share of positions [%]";
  panel.log_x = true;
  for (const HitRateCurve& curve : made.curves) {
    load::PlotSeries series{NameOf(curve), {}};
    for (const CurvePoint& point : curve.points) {
      series.points.emplace_back(static_cast<double>(point.top),
                                 100 * (held_out ? point.held_out : point.seen));
    }
    panel.series.push_back(std::move(series));
  }
  return panel;
}

}  // namespace

std::string HotsetText(const Hotset& made) {
  const CorpusFigures& corpus = made.corpus;
  std::string text = fmt::format(
      "{} documents, {:.2f} MB; left out: {} seen before, {} empty or no text\n"
      "{} tokens counted, {} held out; tokenizer of {}, vocabulary {} ({} compressed)\n",
      corpus.documents, static_cast<double>(corpus.bytes) * 1e-6, corpus.duplicates,
      corpus.not_text, corpus.tokens_seen, corpus.tokens_held_out, made.model, made.raw_vocab_size,
      made.hot_set.compressed_vocab_size);
  for (const HitRateCurve& curve : made.curves) {
    if (curve.order == 0 || curve.count_error + curve.held_out_error == 0) continue;
    text += fmt::format(
        "n-grams of {} tokens did not fit into memory: counts may be too low by up to {} (of the "
        "text held out by {}), and shares are at least those shown\n",
        curve.order, curve.count_error, curve.held_out_error);
  }
  text +=
      "\nShare of positions whose n-gram is among the most frequent of the text counted, in %: "
      "counted / held out\n";
  text += CurveTable(made.curves);
  const uint64_t rows = made.ngrams_kept * made.rows_per_ngram;
  return text + fmt::format("\nkept: {} n-grams, at most {} rows in all layers, {:.1f} MiB\n",
                            made.ngrams_kept, rows,
                            static_cast<double>(rows * made.stored_row_bytes) / 0x1p20);
}

json::object HotsetJson(const Hotset& made) {
  json::array curves;
  for (const HitRateCurve& curve : made.curves) {
    json::array points;
    for (const CurvePoint& point : curve.points) {
      json::object entry = {{"top", point.top}, {"seen", point.seen}};
      if (curve.held_out_positions != 0) entry["held_out"] = point.held_out;
      points.push_back(std::move(entry));
    }
    curves.push_back({{"order", curve.order},
                      {"seen_positions", curve.seen_positions},
                      {"held_out_positions", curve.held_out_positions},
                      {"distinct", curve.distinct},
                      {"count_error", curve.count_error},
                      {"held_out_error", curve.held_out_error},
                      {"points", std::move(points)}});
  }
  const CorpusFigures& corpus = made.corpus;
  return {{"model", made.model},
          {"vocabulary", made.raw_vocab_size},
          {"compressed_vocabulary", made.hot_set.compressed_vocab_size},
          {"documents", corpus.documents},
          {"bytes", corpus.bytes},
          {"duplicates", corpus.duplicates},
          {"not_text", corpus.not_text},
          {"tokens_seen", corpus.tokens_seen},
          {"tokens_held_out", corpus.tokens_held_out},
          {"ngrams_kept", made.ngrams_kept},
          {"rows_max", made.ngrams_kept * made.rows_per_ngram},
          {"stored_row_bytes", made.stored_row_bytes},
          {"curves", std::move(curves)}};
}

Result<std::string> HotsetSvg(const Hotset& made) {
  std::vector<load::PlotPanel> panels = {Panel(made, false)};
  if (made.corpus.tokens_held_out > 0) panels.push_back(Panel(made, true));
  return load::RenderSvg(
      panels, fmt::format("{:.1f} M tokens counted, {:.1f} M held out; {:.0f} MB in {} documents; "
                          "vocabulary {} ({} compressed). All orders: share of rows read.",
                          static_cast<double>(made.corpus.tokens_seen) * 1e-6,
                          static_cast<double>(made.corpus.tokens_held_out) * 1e-6,
                          static_cast<double>(made.corpus.bytes) * 1e-6, made.corpus.documents,
                          made.raw_vocab_size, made.hot_set.compressed_vocab_size));
}

}  // namespace engram::ctl
