// Every header, after macros that <windows.h>, the X Window System and Arduino are known to define. Not among them are
// the min and max of <windows.h>, which programs turn off by NOMINMAX.
#include "others.hpp"

#define near
#define far
#define small char
#define interface struct
#define pascal
#define TRUE 1
#define FALSE 0
#define ERROR 0
#define IN
#define OUT
#define OPTIONAL
#define Bool int
#define Status int
#define Success 0
#define Always 2
#define PI 3.14159
#define F(text) text
#define _S(text) text

#include "rwkv_all.hpp"

int hostile() { return Success; }
