"""The colours of series: what each is on a dark background.

Standard library only, as the records that use them.

The first seven are Okabe and Ito's. The others were searched for: on both backgrounds any two of the list are apart in
normal vision and in simulated deuteranopia. A marker tells series apart as well, wherever they stand in one figure.
"""

ON_DARK = {
    "#D55E00": "#FF781E",
    "#0072B2": "#2DA5E1",
    "#009E73": "#1EC396",
    "#CC79A7": "#F0A5C3",
    "#000000": "#FFFFFF",
    "#56B4E9": "#87D2FF",
    "#E69F00": "#FFC387",
    "#C3965A": "#F0B43C",
    "#E196A5": "#F0E14B",
    "#69695A": "#A5781E",
    "#697896": "#9696B4",
    "#A51E0F": "#C32D4B",
    "#4B0087": "#9669E1",
    "#006978": "#1E96B4",
    "#693C2D": "#C3874B",
    "#2D4B5A": "#788778",
    "#8787C3": "#A5A5E1",
    "#78782D": "#A5C378",
    "#999999": "#999999",
}
"""Every colour of a series, as it is on white, with its counterpart on a dark background."""
