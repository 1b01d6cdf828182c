%% The work of aspen/bench/actors.py as an Erlang program does it. One scheduler: `erl +S 1`.
%%
%% Messages and trees are plain processes, which is how Erlang is fastest; calls are gen_server:call, and lives
%% are gen_server:start and gen_server:stop, which have the acknowledgements of Aspen's start() and stop().
%% `bare_spawn` is the least that Erlang can do: spawn_monitor, one message, and the 'DOWN'.
-module(aspen_peer).
-behaviour(gen_server).

-export([main/1, log/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([start_crasher/0]).

%% Runs the named benchmark and prints one number.
main([Name, Count]) ->
    Value = run(Name, list_to_integer(Count)),
    io:format("~w~n", [float(Value)]),
    halt(0).

run("pingpong_per_s", Count) -> pingpong(Count);
run("calls_per_s", Count) -> calls(Count);
run("fan_in_per_s", Count) -> fan_in(100, 600, Count div 60000);
run("ring_per_s", Count) -> ring(1000, Count);
run("spawn_per_s", Count) -> spawning(Count);
run("bare_spawn_per_s", Count) -> bare_spawning(Count);
run("bytes_per_actor", Count) -> bytes(Count);
run("skynet_s", Count) -> skynet(Count);
run("restarts_per_s", Count) -> restarts(Count).

per_s(Count, Fun) -> Count / seconds(Fun).

seconds(Fun) ->
    Start = erlang:monotonic_time(nanosecond),
    Fun(),
    (erlang:monotonic_time(nanosecond) - Start) / 1.0e9.

%% -- messages ---------------------------------------------------------------------------------------------

pingpong(Count) ->
    Main = self(),
    [Ping, Pong] = [spawn(fun() -> player(Main) end) || _ <- [1, 2]],
    per_s(Count, fun() ->
        Ping ! {ball, Count, Pong},
        receive done -> ok end
    end).

player(Main) ->
    receive
        {ball, 0, _} -> Main ! done;
        {ball, Left, Other} -> Other ! {ball, Left - 1, self()}, player(Main)
    end.

calls(Count) ->
    {ok, Counter} = gen_server:start(?MODULE, 0, []),
    Main = self(),
    per_s(Count, fun() ->
        spawn(fun() -> Main ! {result, call_many(Counter, Count, 0)} end),
        receive {result, Count} -> ok end
    end).

call_many(_, 0, Result) -> Result;
call_many(Counter, Left, _) -> call_many(Counter, Left - 1, gen_server:call(Counter, {add, 1})).

%% Each sender casts Each messages a round; the counter starts the next round when it has them all.
fan_in(Senders, Each, Rounds) ->
    Main = self(),
    Counter = spawn(fun() ->
        receive {senders, Pids} -> count(Pids, Senders * Each, Senders * Each, Rounds, Main) end
    end),
    Pids = [spawn(fun() -> sender(Counter, Each) end) || _ <- lists:seq(1, Senders)],
    per_s(Senders * Each * Rounds, fun() ->
        Counter ! {senders, Pids},
        [Pid ! go || Pid <- Pids],
        receive done -> ok end
    end).

count(_, 0, _, 1, Main) -> Main ! done;
count(Pids, 0, All, Rounds, Main) ->
    [Pid ! go || Pid <- Pids],
    count(Pids, All, All, Rounds - 1, Main);
count(Pids, Left, All, Rounds, Main) ->
    receive {put, By} -> count(Pids, Left - By, All, Rounds, Main) end.

sender(Counter, Each) ->
    receive go -> send_many(Counter, Each) end,
    sender(Counter, Each).

send_many(_, 0) -> ok;
send_many(Counter, Left) -> Counter ! {put, 1}, send_many(Counter, Left - 1).

ring(Size, Hops) ->
    Main = self(),
    Links = [spawn(fun() -> receive {join, Next} -> link_of(Next, Main) end end) || _ <- lists:seq(1, Size)],
    [First | Rest] = Links,
    [One ! {join, Other} || {One, Other} <- lists:zip(Links, Rest ++ [First])],
    per_s(Hops, fun() ->
        First ! {token, Hops},
        receive done -> ok end
    end).

link_of(Next, Main) ->
    receive
        {token, 0} -> Main ! done;
        {token, Left} -> Next ! {token, Left - 1}, link_of(Next, Main)
    end.

%% -- lives ------------------------------------------------------------------------------------------------

spawning(Count) ->
    Main = self(),
    per_s(Count, fun() ->
        spawn(fun() -> start_stop(Count), Main ! done end),
        receive done -> ok end
    end).

start_stop(0) -> ok;
start_stop(Left) ->
    {ok, Pid} = gen_server:start(?MODULE, 0, []),
    ok = gen_server:stop(Pid),
    start_stop(Left - 1).

bare_spawning(Count) ->
    Main = self(),
    per_s(Count, fun() ->
        spawn(fun() -> spawn_end(Count), Main ! done end),
        receive done -> ok end
    end).

spawn_end(0) -> ok;
spawn_end(Left) ->
    {Pid, Monitor} = spawn_monitor(fun() -> receive stop -> ok end end),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    spawn_end(Left - 1).

%% Resident memory, as for every other peer.
bytes(Count) ->
    Before = resident(),
    Pids = [element(2, {ok, _} = gen_server:start(?MODULE, 0, [])) || _ <- lists:seq(1, Count)],
    Bytes = (resident() - Before) / Count,
    true = length(Pids) =:= Count,
    Bytes.

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:lexemes(Text, " "),
    binary_to_integer(Pages) * 4096.

skynet(Size) ->
    Main = self(),
    Sum = Size * (Size - 1) div 2,
    seconds(fun() ->
        spawn(fun() -> node(Main, 0, Size) end),
        receive {total, Sum} -> ok end
    end).

node(Parent, Number, 1) ->
    Parent ! {total, Number};
node(Parent, Number, Size) ->
    Self = self(),
    Below = Size div 10,
    [spawn(fun() -> node(Self, Number + I * Below, Below) end) || I <- lists:seq(0, 9)],
    Parent ! {total, add(10, 0)}.

add(0, Sum) -> Sum;
add(Left, Sum) -> receive {total, Number} -> add(Left - 1, Sum + Number) end.

%% Crash reports are made and handed over; a handler that drops them takes the place of the console's.
restarts(Count) ->
    ok = logger:add_handler(drop, ?MODULE, #{}),
    ok = logger:remove_handler(default),
    {ok, Supervisor} = supervisor:start_link(?MODULE, supervisor),
    Rate = per_s(Count, fun() -> crash(Supervisor, Count) end),
    [{crasher, _, worker, _}] = supervisor:which_children(Supervisor),
    Rate.

crash(_, 0) -> ok;
crash(Supervisor, Left) ->
    [{crasher, Pid, worker, _}] = supervisor:which_children(Supervisor),
    Monitor = monitor(process, Pid),
    gen_server:cast(Pid, crash),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    crash(Supervisor, Left - 1).

start_crasher() -> gen_server:start_link(?MODULE, 0, []).

log(_, _) -> ok.

%% -- gen_server, and the supervisor's init ----------------------------------------------------------------

init(supervisor) ->
    {ok, {#{strategy => one_for_one, intensity => 1000000, period => 1},
          [#{id => crasher, start => {?MODULE, start_crasher, []}}]}};
init(N) -> {ok, N}.

handle_call({add, By}, _, N) -> {reply, N + By, N + By}.

handle_cast(crash, _) -> error(crash).

handle_info(_, N) -> {noreply, N}.
