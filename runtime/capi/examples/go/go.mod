module example.com/pocket-t5

go 1.19
