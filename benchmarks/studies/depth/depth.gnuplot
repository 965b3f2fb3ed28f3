# Plots the CSV of study_depth as an SVG:
#   gnuplot -e "table='depth.csv'; picture='depth.svg'" benchmarks/studies/depth/depth.gnuplot
# A row for each version, at the start and after training; a column for each kind of model.
set terminal svg size 1200,1000 font "sans,11" background "white"
set output picture
set datafile separator ","
depths = "2 6 12 24 48"
colours = "#e5a83b #dd6b3d #b03a75 #5c2d84 #101028"  # from light to dark, so that grey shows the order as well
points = "4 6 8 10 7"
set logscale y
set yrange [1e-3:1e5]
set format y "10^{%T}"
set xrange [0:1.02]
set xtics 0.25
set grid
set key off
set multiplot layout 4,4 margins 0.075,0.985,0.105,0.965 spacing 0.012,0.02
row = 0
do for [version in "RWKV-4 RWKV-7"] {
  do for [at in "start end"] {
    row = row + 1
    column = 0
    do for [norms in "normed bare"] {
      do for [weights in "official plain"] {
        column = column + 1
        if (row == 1) { set title norms . ", " . weights . " weights" offset 0,-0.6 } else { unset title }
        if (column == 1) { set ylabel version . ", at the " . at; set format y "10^{%T}" } \
        else { unset ylabel; set format y "" }
        if (row == 4) { set xlabel "layer / depth"; set format x "%g" } else { unset xlabel; set format x "" }
        if (row == 4 && column == 1) { set key at screen 0.5,0.015 center bottom vertical maxrows 1 samplen 3 } \
        else { set key off }
        plot for [i = 1:words(depths)] table using \
          (strcol(1) eq version && strcol(2) eq norms && strcol(3) eq weights && strcol(5) eq at && \
           $4 == word(depths, i) + 0 ? $6 / $4 : NaN):7 \
          with linespoints linewidth 1.5 linecolor rgb word(colours, i) pointtype int(word(points, i)) pointsize 0.5 \
          title word(depths, i) . " layers"
      }
    }
  }
}
unset multiplot
