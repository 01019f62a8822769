// UP_TO(n, X, a): X(1, a) X(2, a) ... X(n, a), for the sizes of tiles. n may be a macro.
#ifndef TW_UP_TO_H
#define TW_UP_TO_H

#define UP_TO_2(X, a) X(1, a) X(2, a)
#define UP_TO_3(X, a) UP_TO_2(X, a) X(3, a)
#define UP_TO_4(X, a) UP_TO_3(X, a) X(4, a)
#define UP_TO_6(X, a) UP_TO_4(X, a) X(5, a) X(6, a)
#define UP_TO_8(X, a) UP_TO_6(X, a) X(7, a) X(8, a)
#define UP_TO_9(X, a) UP_TO_8(X, a) X(9, a)
#define UP_TO_10(X, a) UP_TO_9(X, a) X(10, a)
#define UP_TO_12(X, a) UP_TO_10(X, a) X(11, a) X(12, a)
#define UP_TO_14(X, a) UP_TO_12(X, a) X(13, a) X(14, a)
#define UP_TO_16(X, a) UP_TO_14(X, a) X(15, a) X(16, a)
#define UP_TO_(n, X, a) UP_TO_##n(X, a)
#define UP_TO(n, X, a) UP_TO_(n, X, a)

#endif
