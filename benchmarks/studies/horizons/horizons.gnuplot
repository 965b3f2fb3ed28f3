# Plots the CSV of study_horizons as an SVG:
#   gnuplot -e "table='horizons.csv'; picture='horizons.svg'" benchmarks/studies/horizons/horizons.gnuplot
set terminal svg size 1100,760 font "sans,12" background "white"
set output picture
set datafile separator ","
stats table using (strcol(1) eq "half-life" ? $3 : NaN) nooutput
layers = int(STATS_max) + 1
stats table using (strcol(1) eq "state" ? $4 : NaN) nooutput
behind = int(STATS_max)
colours = "#f0c050 #e5883b #cc5040 #983070 #5c2d84 #101028"  # from light to dark, so that grey shows the order as well
set grid
set multiplot layout 2,2 margins 0.07,0.94,0.09,0.95 spacing 0.14,0.14
set logscale y
set format y "10^{%T}"
set key top left Left reverse samplen 2
do for [version in "RWKV-4 RWKV-7"] {
  set title version . ": half-lives of channels"
  set xlabel version eq "RWKV-4" ? "channels, %" : "channels and tokens, %"
  set ylabel "half-life, tokens"
  set xrange [0:100]
  plot for [l = 0:layers - 1] table using (strcol(1) eq "half-life" && strcol(2) eq version && $3 == l ? $4 : NaN):5 \
    with lines linewidth 2 linecolor rgb word(colours, 1 + l * (words(colours) - 1) / (layers > 1 ? layers - 1 : 1)) \
    title sprintf("layer %d", l)
}
unset logscale y
set format y "%g"
set format x "%g"
set key off
set logscale x
set xrange [1:behind + 2]
set yrange [-0.5:layers - 0.5]
set ytics 1
set palette gray negative
set logscale cb
set cbrange [1e-4:1]
set format cb "10^{%T}"
set cblabel "relative change of the state"
do for [version in "RWKV-4 RWKV-7"] {
  set title version . ": one changed token"
  set xlabel "tokens from the changed one on"
  set ylabel "layer"
  plot table using (strcol(1) eq "state" && strcol(2) eq version ? $4 + 1 : NaN):3:($4 + 1):($4 + 2):($3 - 0.5):($3 + 0.5):\
    ($5 > 1e-6 ? $5 : 1e-6) with boxxyerror fillstyle solid 1.0 noborder linecolor palette
}
unset multiplot
