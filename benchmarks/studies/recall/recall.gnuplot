# Plots the CSV of study_recall as an SVG:
#   gnuplot -e "table='recall.csv'; picture='recall.svg'" benchmarks/studies/recall/recall.gnuplot
set terminal svg size 1100,450 font "sans,12" background "white"
set output picture
set datafile separator ","
set datafile missing NaN  # rows of other models do not break a line
models = "RWKV-4 RWKV-5.2 RWKV-6 RWKV-7 attention"
colours = "#e5a83b #dd6b3d #b03a75 #5c2d84 #101028"  # from light to dark, so that grey shows the order as well
points = "4 6 8 10 7"
set logscale x 2
set grid
set yrange [0:105]
set ylabel "right answers, %"
set xlabel "tokens of a sequence"
set multiplot layout 1,2 margins 0.07,0.985,0.14,0.92 spacing 0.08
set key at graph 0.27, graph 0.6
do for [task in "recall copy"] {
  set title task
  plot for [i = 1:words(models)] table using \
    (strcol(1) eq task && strcol(2) eq word(models, i) && strcol(4) eq "best" ? $3 : NaN):(100 * $6) \
    with linespoints linewidth 2 linecolor rgb word(colours, i) pointtype int(word(points, i)) \
    pointsize 0.7 title word(models, i)
}
unset multiplot
