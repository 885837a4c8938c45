# With process spawning allowed, what starts processes works.
import multiprocessing
import subprocess


def doubled(queue):
    queue.put(42)


FACTS["subprocess"] = subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True).stdout.strip()
child = os.fork()
if child == 0:
    os._exit(7)
FACTS["fork"] = str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=doubled, args=(queue,))
process.start()
FACTS["multiprocessing"] = str(queue.get())
process.join()
report()
