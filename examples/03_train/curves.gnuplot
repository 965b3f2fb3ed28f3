# Draws the curves of both models of this folder: gnuplot curves.gnuplot
set terminal svg size 800,500 background 'white'
set output 'shakespeare-bf16.svg'
set datafile separator ','
set xlabel 'bytes'
set ylabel 'loss, nats per byte'
set yrange [1.1:2.2]
set grid
plot 'shakespeare-v4-bf16.csv' using 2:3 skip 1 with lines linecolor rgb '#f0a060' title 'RWKV-4, training', \
     'shakespeare-bf16.csv' using 2:3 skip 1 with lines linecolor rgb '#80a0e0' title 'RWKV-7, training', \
     'shakespeare-v4-bf16.csv' using ($4 > 0 ? $2 : NaN):4 skip 1 with linespoints linecolor rgb '#a04000' pointtype 4 \
       title 'RWKV-4, validation', \
     'shakespeare-bf16.csv' using ($4 > 0 ? $2 : NaN):4 skip 1 with linespoints linecolor rgb '#002080' pointtype 7 \
       title 'RWKV-7, validation'
