"""The model's formulas on costs whose answers are known, and one short measurement."""
import os
import subprocess
import sys
import tempfile
import unittest

import scale


class Formulas(unittest.TestCase):
    def costs(self, **changes):
        return scale.Costs(**{"node_us": 0.1, "node_us_two": 0.1, "client_us": 0.2, "wire_bytes": 270.0, **changes})

    def test_threads_that_do_not_disturb_each_other_add_up(self):
        self.assertAlmostEqual(scale.rows_by_cores(self.costs(), 8) / 80e6, 1)

    def test_two_data_threads_give_what_was_measured_with_two(self):
        costs = self.costs(node_us_two=0.12)
        self.assertAlmostEqual(scale.rows_by_cores(costs, 2) / (2 / 0.12e-6), 1)
        self.assertLess(scale.rows_by_cores(costs, 16), 16 * scale.rows_by_cores(costs, 1) / 2)

    def test_two_threads_that_cost_less_than_one_are_not_a_gain_to_extrapolate(self):
        self.assertAlmostEqual(scale.rows_by_cores(self.costs(node_us_two=0.09), 64) / 640e6, 1)

    def test_a_network_carries_its_bytes(self):
        self.assertAlmostEqual(scale.rows_by_network(self.costs(wire_bytes=250.0), 100) / (12.5e9 * 0.94 / 250), 1)

    def test_the_table_names_the_lesser_bound_and_the_goal(self):
        text = "\n".join(scale.table(self.costs()))
        self.assertIn("43.5 n", text)  # 100 Gb/s, whatever the cores
        self.assertIn("reached", text)
        self.assertIn("missed", "\n".join(scale.table(self.costs(node_us=2.0, node_us_two=2.0))))

    def test_costs_that_are_none_are_refused(self):
        for bad in (0, -1, float("nan"), float("inf"), "0.1", None):
            with self.assertRaises(ValueError):
                self.costs(node_us=bad)


class Measured(unittest.TestCase):
    def run_scale(self, *arguments):
        return subprocess.run([sys.executable, scale.__file__, *arguments], capture_output=True, text=True, timeout=100)

    def test_a_short_measurement_is_what_predict_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/costs.json"
            measured = self.run_scale("measure", "--bin", os.environ["ENGRAM_BIN"], "--out", out, "--rounds", "1",
                                      "--seconds", "0.3", "--rows-scale", "0.0005")
            self.assertEqual(measured.returncode, 0, measured.stderr)
            predicted = self.run_scale("predict", out)
            self.assertEqual(predicted.returncode, 0, predicted.stderr)
            self.assertIn(predicted.stdout, measured.stdout)

    def test_what_cannot_be_read_is_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/costs.json", "w", encoding="utf-8") as file:
                file.write('{"costs": {"node_us": 1}}')
            for path in (f"{folder}/costs.json", "/nowhere/costs.json"):
                failed = self.run_scale("predict", path)
                self.assertEqual(failed.returncode, 1)
                self.assertEqual(failed.stderr.count("\n"), 1, failed.stderr)


if __name__ == "__main__":
    unittest.main()
