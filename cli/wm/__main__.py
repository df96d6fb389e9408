from wm.main import main

main()
