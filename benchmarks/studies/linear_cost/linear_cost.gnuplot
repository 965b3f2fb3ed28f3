# Plots the medians of study_linear_cost as an SVG:
#   gnuplot -e "table='linear_cost.csv'; picture='linear_cost.svg'" benchmarks/studies/linear_cost/linear_cost.gnuplot
# Kinds differ in colour, in lightness, in dashes and in the shape of their points.
set terminal svg size 1080,720 font "sans,12" background "white"
set output picture
set datafile separator ","
set style line 1 linecolor "#08306b" linewidth 2 dashtype 1 pointtype 7 pointsize 0.6
set style line 2 linecolor "#4292c6" linewidth 2 dashtype 1 pointtype 9 pointsize 0.7
set style line 3 linecolor "#d94801" linewidth 2 dashtype 2 pointtype 5 pointsize 0.6
set style line 4 linecolor "#969696" linewidth 2 dashtype 3 pointtype 13 pointsize 0.8
set logscale xy
set xtics (128, 256, 512, "1k" 1024, "2k" 2048, "4k" 4096, "8k" 8192, "16k" 16384)
set xlabel "tokens"
set format y "10^{%T}"
set grid
set key top left
kinds = "RWKV-4 RWKV-7 attention LSTM"
of(kind, column) = strcol(1) eq kind ? column : NaN

set multiplot layout 2, 3
set ylabel "sequence in chunks, ms"
plot for [i=1:4] table using 2:(of(word(kinds, i), $3)) skip 1 with linespoints linestyle i title word(kinds, i)
unset key
set ylabel "one token at the end,\nstep by step, microseconds"
plot for [i=1:4] table using 2:(of(word(kinds, i), $5)) skip 1 with linespoints linestyle i
set ylabel "forwards and backwards, ms"
plot for [i=1:4] table using 2:(of(word(kinds, i), $6)) skip 1 with linespoints linestyle i
set ylabel "state, kB"
plot for [i=1:4] table using 2:(of(word(kinds, i), $7)) skip 1 with linespoints linestyle i
set ylabel "state and scratch of a sequence, MB"
plot for [i=1:4] table using 2:(of(word(kinds, i), $8)) skip 1 with linespoints linestyle i
set ylabel "scratch of training, MB"
plot for [i=1:4] table using 2:(of(word(kinds, i), $9)) skip 1 with linespoints linestyle i
unset multiplot
