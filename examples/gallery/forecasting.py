# SPDX-License-Identifier: MIT
"""
Forecasting with bands, and with what is known ahead
====================================================

How many visitors will a museum have in the next four weeks? The series has a weekly rhythm, a yearly one, and
days off on which more people come. Such days are known ahead, the weather is not. This example makes up three
years of visitors, forecasts them with a band, and checks on the past how good such forecasts have been.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

rng = np.random.default_rng(0)
days, ahead = 3 * 365, 28
day = np.arange(days + ahead)
week = np.array([0, 140, 120, 130, 160, 300, 340])  # closed on Mondays
day_off = (rng.random(len(day)) < 0.04) & (day % 7 > 0) & (day % 7 < 5)
day_off[days + 8] = True  # one in the second week to come
year = 2 * np.pi * day / 365
visitors = (1 + 0.2 * np.sin(year)) * (week[day % 7] + 150 * day_off) + (day % 7 > 0) * rng.normal(0, 18, len(day))

# %%
# Forecast
# --------
# ``future`` are columns that are known ahead: the days off, and the time of the year. Nothing else has to be
# said: that the series has a season of seven days, and whether differences help, is found in the data. The
# band between the quantiles 0.1 and 0.9 should contain 8 of 10 days. Its width comes from errors in a part of
# the series that was held out.

known = np.column_stack([day_off, np.sin(year), np.cos(year)])
model = crnn.Forecaster(horizon=ahead, seed=0)
model.fit(visitors[:days], future=known[:days])
print(f"season: {model.season_} days, differences: {model.difference_}")

forecast = model.forecast(ahead, future=known[days:])
band = model.forecast(ahead, future=known[days:], quantiles=(0.1, 0.9))
inside = (visitors[days:] >= band[:, 0]) & (visitors[days:] <= band[:, 1])
error = np.abs(forecast - visitors[days:]).mean()
print(f"mean error {error:.0f} visitors; {inside.sum()} of {ahead} days in the band")

figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
ax.plot(day[days - 56 : days], visitors[days - 56 : days], color="0.6", label="known")
ax.plot(day[days:], visitors[days:], color="black", label="what came")
ax.plot(day[days:], forecast, color="tab:blue", label="forecast")
ax.fill_between(day[days:], band[:, 0], band[:, 1], color="tab:blue", alpha=0.25, label="8 of 10")
ax.plot(day[days:][day_off[days:]], forecast[day_off[days:]], "o", color="tab:red", label="day off")
ax.set(xlabel="day", ylabel="visitors")
ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
plt.show()

# %%
# How good have such forecasts been?
# ----------------------------------
# A back-test repeats the forecast from earlier days, with what was known there, and compares it with
# the simplest forecast: the same day of the week before.

result = model.backtest(visitors[:days], origins=4, future=known[:days])
print(result)
