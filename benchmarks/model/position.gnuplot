# Plots the CSV of bench_position as an SVG:
#   gnuplot -e "table='position.csv'; picture='position.svg'" benchmarks/model/position.gnuplot
set terminal svg size 720,360 font "sans,12" background "white"
set output picture
set datafile separator ","
set xlabel "position, tokens"
set ylabel "time per token, microseconds"
set y2label "resident memory, MB"
set y2tics
set yrange [0:*]
set y2range [0:*]
set key bottom right
set xtics 25000
set grid ytics
plot table using ($0 * 4000 + 2000):2 skip 1 with linespoints pointtype 7 title "median time per token", \
     table using ($0 * 4000 + 2000):($4 / 1024) skip 1 axes x1y2 with lines linewidth 2 title "resident memory"
