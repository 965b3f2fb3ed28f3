# Plots the CSV of study_context as an SVG:
#   gnuplot -e "table='context.csv'; picture='context.svg'" benchmarks/studies/context/context.gnuplot
set terminal svg size 1100,520 font "sans,12" background "white"
set output picture
set datafile separator ","
array models[7] = ["RWKV-4 64", "RWKV-4 256", "RWKV-4 1024", "RWKV-7 64", "RWKV-7 256", "RWKV-7 1024", "shipped"]
# A version has a dash, a context of training a point and a shade, so that grey shows them as well.
array colours[7] = ["#eba53c", "#d4622f", "#7d2a1a", "#8db4e2", "#4374c4", "#1d2f6f", "#000000"]
array dashes[7] = [1, 1, 1, 2, 2, 2, 1]
array points[7] = [4, 6, 8, 4, 6, 8, 7]
set logscale x 2
set xrange [0.8:5000]
set xlabel "bytes of context"
set grid
set multiplot layout 1,2 margins 0.07,0.985,0.27,0.92 spacing 0.09,0
set key at screen 0.5,0.02 center bottom vertical maxrows 3 samplen 4
set title "loss of the next byte, nats"
plot for [i = 1:7] table using (strcol(1) eq models[i] ? sqrt($2 * $3) : NaN):4 with linespoints linewidth 1.5 \
  linecolor rgb colours[i] dashtype dashes[i] pointtype points[i] pointsize 0.6 title models[i]
set key off
set title "the same, less the loss after 33 to 64 bytes"
set xrange [12:5000]
set arrow from graph 0,first 0 to graph 1,first 0 nohead linecolor rgb "#888888"
array after_64[7]
do for [i = 1:7] {
  after_64[i] = NaN
  stats table using (strcol(1) eq models[i] && $3 == 64 ? $4 : NaN) nooutput
  if (exists("STATS_records") && STATS_records > 0) { after_64[i] = STATS_min }
}
plot for [i = 1:7] table using (strcol(1) eq models[i] && $3 >= 16 ? sqrt($2 * $3) : NaN):($4 - after_64[i]) \
  with linespoints linewidth 1.5 linecolor rgb colours[i] dashtype dashes[i] pointtype points[i] pointsize 0.6
unset multiplot
