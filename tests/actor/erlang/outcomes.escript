#!/usr/bin/env escript
%% What Erlang/OTP does in each scenario of tests/actor/test_erlang.py, as JSON: run it as
%%     escript tests/actor/erlang/outcomes.escript > tests/actor/erlang/outcomes.json
%% Reasons are written as strings; a crash is "crash", a pid or reference is left out.
-mode(compile).
-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

main(_) ->
    logger:set_primary_config(level, none),
    Results = [{Name, run(Fun)} || {Name, Fun} <- scenarios()],
    io:format("{~n~s~n}~n", [string:join([io_lib:format("  ~p: ~s", [atom_to_list(N), json(R)]) || {N, R} <- Results], ",\n")]).

%% Each scenario runs in a process of its own, which traps exits, with `self()` registered as the log.
run(Fun) ->
    Me = self(),
    {Pid, Ref} = spawn_monitor(fun() -> process_flag(trap_exit, true), Me ! {self(), Fun()} end),
    receive
        {Pid, R} -> erlang:demonitor(Ref, [flush]), R;
        {'DOWN', Ref, _, _, Why} -> {failed, Why}
    after 5000 -> timeout
    end.

json(L) when is_list(L) -> "[" ++ string:join([json(X) || X <- L], ", ") ++ "]";
json(true) -> "true";
json(false) -> "false";
json(N) when is_integer(N) -> integer_to_list(N);
json(T) -> "\"" ++ text(T) ++ "\"".

text(A) when is_atom(A) -> atom_to_list(A);
text({noproc, [_ | _]}) -> "noproc";
text({shutdown, T}) -> "shutdown(" ++ text(T) ++ ")";
text({boom, S}) when is_list(S) -> "crash";
text({{boom, S}, _}) when is_list(S) -> "crash";
text(N) when is_integer(N) -> integer_to_list(N);
text(T) -> lists:flatten(string:replace(io_lib:format("~p", [T]), "\"", "'", all)).

%% -- a server that does as it is told, and logs to its creator ----------------------------------------------------

init({log, Log, Trap}) -> process_flag(trap_exit, Trap), {ok, Log};
init({stop, R}) -> {stop, R};
init({crash, _}) -> erlang:error(boom);
init({slow_ok, Log}) -> process_flag(trap_exit, true), Log ! {init, self()}, receive go -> ok end, {ok, Log};
init({slow, Log}) -> Log ! {init, self()}, receive go -> ok end, {ok, Log};
init(ignore) -> ignore.

handle_call({nap, Ms}, _, S) -> timer:sleep(Ms), S ! woke, {reply, rested, S};
handle_call(ping, _, S) -> {reply, pong, S};
handle_call(crash, _, _) -> erlang:error(boom);
handle_call({stop, R}, _, S) -> {stop, R, S};
handle_call({stop_reply, R}, _, S) -> {stop, R, bye, S};
handle_call({call, Pid}, _, S) -> {reply, catch gen_server:call(Pid, ping, 200), S};
handle_call(never, _, S) -> {noreply, S}.
handle_cast(crash, _) -> erlang:error(boom);
handle_cast({stop, R}, S) -> {stop, R, S};
handle_cast({note, X}, S) -> S ! {note, X}, {noreply, S}.
handle_info({'EXIT', _, R}, S) -> S ! {exit, R}, {noreply, S};
handle_info({'DOWN', _, _, _, R}, S) -> S ! {down, R}, {noreply, S};
handle_info(_, S) -> {noreply, S}.
terminate(R, S) -> S ! {terminate, R}, ok.

server(Trap) -> {ok, P} = gen_server:start(?MODULE, {log, self(), Trap}, []), P.
linked(Trap) -> {ok, P} = gen_server:start_link(?MODULE, {log, self(), Trap}, []), P.

%% A plain process: does what it is sent. Sends what comes to its log.
plain(Trap) -> Log = self(), P = spawn(fun() -> process_flag(trap_exit, Trap), Log ! {up, self()}, loop(Log) end),
    receive {up, P} -> P end.
loop(Log) ->
    receive
        {do, F} -> Log ! {did, F()}, loop(Log);
        {'EXIT', _, R} -> Log ! {exit, R}, loop(Log);
        {'DOWN', _, _, _, R} -> Log ! {down, R}, loop(Log);
        Other -> Log ! Other, loop(Log)
    end.
do(P, F) -> P ! {do, F}, receive {did, R} -> R after 200 -> none end.
%% The exit reason of P, or `alive` when it has none in a while.
fate(P) -> Ref = monitor(process, P), receive {'DOWN', Ref, _, _, R} -> R after 60 -> demonitor(Ref, [flush]), alive end.
watch(P) -> monitor(process, P).
fate(_, Ref) -> receive {'DOWN', Ref, _, _, R} -> R after 100 -> demonitor(Ref, [flush]), alive end.
log() -> receive {exit, R} -> [["exit", R] | log()]; {down, R} -> [["down", R] | log()];
                 {terminate, R} -> [["terminate", R] | log()]; {note, X} -> [["note", X] | log()];
                 woke -> [["woke"] | log()]; {'EXIT', _, R} -> [["EXIT", R] | log()]; _ -> log()
         after 60 -> [] end.
names(L) -> [[list_to_atom(hd(E)) | tl(E)] || E <- L].

%% A dead process.
dead() -> P = spawn(fun() -> ok end), R = monitor(process, P), receive {'DOWN', R, _, _, _} -> P end.

link_exit(Trap, R) ->
    A = plain(Trap), B = plain(false), do(A, fun() -> link(B) end),
    RA = watch(A), exit_self(B, R), F = fate(A, RA), [F, names(log())].
exit_self(P, R) -> P ! {do, fun() -> exit(R) end}.

signal(Trap, R) -> A = plain(Trap), RA = watch(A), exit(A, R), F = fate(A, RA), [F, names(log())].
signal_self(Trap, R) -> A = plain(Trap), RA = watch(A), A ! {do, fun() -> exit(self(), R) end}, F = fate(A, RA), [F, names(log())].
stopped(Trap, How) -> S = server(Trap), Ref = watch(S), How(S), F = fate(S, Ref), [F, names(log())].
child(Trap, How) -> S = linked(Trap), Ref = watch(S), How(S), F = fate(S, Ref), [F, names([E || E <- log(), hd(E) =/= "EXIT"])].
call(S, M, T) -> try gen_server:call(S, M, T) catch exit:{E, _} -> [error, E] end.

scenarios() ->
    Reasons = [normal, shutdown, {shutdown, full}, bad, kill, killed],
    lists:append([
     [{name(["link", trap(T), R]), fun() -> link_exit(T, R) end} || T <- [true, false], R <- Reasons],
     [{name(["signal", trap(T), R]), fun() -> signal(T, R) end} || T <- [true, false], R <- Reasons],
     [{name(["signal_self", trap(T), R]), fun() -> signal_self(T, R) end} || T <- [true, false], R <- Reasons],
     [{name(["link_to_dead", trap(T)]), fun() -> A = plain(T), D = dead(), RA = watch(A), A ! {do, fun() -> link(D) end},
            F = fate(A, RA), [F, names(log())] end} || T <- [true, false]],
     [{name(["stop", trap(T), R]), fun() -> stopped(T, fun(S) -> gen_server:cast(S, {stop, R}) end) end} || T <- [true, false], R <- Reasons],
     [{name(["crash", trap(T)]), fun() -> stopped(T, fun(S) -> gen_server:cast(S, crash) end) end} || T <- [true, false]],
     [{name(["parent_signal", trap(T), R]), fun() -> child(T, fun(S) -> exit(S, R) end) end} || T <- [true, false], R <- Reasons],
     [{name(["parent_ends", trap(T), R]), fun() -> parent_ends(T, R) end} || T <- [true, false], R <- Reasons],
     [
      {link_twice_one_exit, fun() -> A = plain(true), B = plain(false), do(A, fun() -> link(B), link(B) end), do(B, fun() -> link(A) end),
            exit_self(B, bad), names(log()) end},
      {link_twice_unlink_once, fun() -> A = plain(true), B = plain(false), do(A, fun() -> link(B), link(B), unlink(B) end),
            exit_self(B, bad), names(log()) end},
      {link_self, fun() -> A = plain(true), do(A, fun() -> link(self()) end), RA = watch(A), exit_self(A, bad), [fate(A, RA), names(log())] end},
      {link_chain_kill, fun() -> A = plain(false), B = plain(false), C = plain(true), do(B, fun() -> link(A), link(C) end), RB = watch(B),
            exit(A, kill), [fate(B, RB), names(log())] end},
      {link_both_ways, fun() -> A = plain(false), B = plain(false), do(A, fun() -> link(B) end), RB = watch(B), exit_self(A, bad), fate(B, RB) end},
      {monitor_dead, fun() -> A = plain(false), D = dead(), do(A, fun() -> monitor(process, D) end), names(log()) end},
      {monitor_thrice, fun() -> A = plain(false), B = plain(false), [do(A, fun() -> monitor(process, B) end) || _ <- [1, 2, 3]], exit(B, bad), names(log()) end},
      {monitor_one_way, fun() -> A = plain(false), B = plain(false), do(A, fun() -> monitor(process, B) end), RB = watch(B), exit_self(A, bad), fate(B, RB) end},
      {monitor_kill, fun() -> A = plain(false), B = plain(false), do(A, fun() -> monitor(process, B) end), exit(B, kill), names(log()) end},
      {monitor_normal, fun() -> A = plain(false), B = plain(false), do(A, fun() -> monitor(process, B) end), exit_self(B, normal), names(log()) end},
      {monitor_self, fun() -> A = plain(false), do(A, fun() -> monitor(process, self()) end), RA = watch(A), exit(A, bad), [fate(A, RA), names(log())] end},
      {demonitor_before, fun() -> A = plain(false), B = plain(false),
            R = do(A, fun() -> M = monitor(process, B), demonitor(M, [flush, info]) end), exit(B, bad), [R, names(log())] end},
      {demonitor_queued_flush, fun() -> A = plain(false), B = plain(false),
            R = do(A, fun() -> M = monitor(process, B), exit(B, bad), timer:sleep(20), demonitor(M, [flush]) , demonitor(M, [flush, info]) end), [R, names(log())] end},
      {demonitor_queued_no_flush, fun() -> A = plain(false), B = plain(false),
            R = do(A, fun() -> M = monitor(process, B), exit(B, bad), timer:sleep(20), demonitor(M, [info]) end), [R, names(log())] end},
      {message_before_exit, fun() -> S = server(false), Ref = watch(S), [gen_server:cast(S, {note, N}) || N <- [1, 2]], gen_server:cast(S, {stop, normal}),
            gen_server:cast(S, {note, 3}), F = fate(S, Ref), [F, names(log())] end},
      {call_dead, fun() -> S = server(false), gen_server:stop(S), call(S, ping, 100) end},
      {call_crash, fun() -> S = server(false), R = call(S, crash, 100), [R, fate(S)] end},
      {call_stop_without_reply, fun() -> S = server(false), R = call(S, {stop, bad}, 100), R end},
      {call_stop_with_reply, fun() -> S = server(false), R = call(S, {stop_reply, normal}, 100), [R, fate(S)] end},
      {call_timeout, fun() -> S = server(false), R = call(S, never, 20), [R, fate(S)] end},
      {call_timeout_is_executed_and_late_reply_is_dropped, fun() -> S = server(false), R = call(S, {nap, 50}, 20), timer:sleep(60),
            [R, names(log()), {messages, []} =:= process_info(self(), messages)] end},
      {call_killed_while_waiting, fun() -> S = server(false), spawn(fun() -> timer:sleep(20), exit(S, kill) end), call(S, never, 200) end},
      {call_killed_while_in_handler, fun() -> S = server(false), spawn(fun() -> timer:sleep(20), exit(S, kill) end), call(S, {nap, 100}, 200) end},
      {call_queued_when_it_ends, fun() -> S = server(false), gen_server:cast(S, {stop, normal}), call(S, ping, 100) end},
      {call_itself, fun() -> S = server(false), R = call(S, {call, S}, 500), case R of {'EXIT', {calling_self, _}} -> refused; _ -> R end end},
      {start_ok, fun() -> {ok, _} = gen_server:start_link(?MODULE, {log, self(), false}, []), ok end},
      {start_stop, fun() -> [started(gen_server:start_link(?MODULE, {stop, bad}, []))] end},
      {start_shutdown, fun() -> [started(gen_server:start_link(?MODULE, {stop, shutdown}, []))] end},
      {start_ignore, fun() -> [started(gen_server:start_link(?MODULE, ignore, []))] end},
      {start_crash, fun() -> [started(gen_server:start_link(?MODULE, {crash, x}, []))] end},
      {start_nolink_stop, fun() -> [started(gen_server:start(?MODULE, {stop, bad}, [])), names(log())] end},
      {start_link_fails_non_trapping_parent, fun() -> A = plain(false), RA = watch(A),
            A ! {do, fun() -> gen_server:start_link(?MODULE, {stop, bad}, []) end}, fate(A, RA) end},
      {start_link_ignore_non_trapping_parent, fun() -> A = plain(false), RA = watch(A),
            A ! {do, fun() -> gen_server:start_link(?MODULE, ignore, []) end}, fate(A, RA) end},
      {start_killed_in_init, fun() -> Me = self(),
            spawn(fun() -> Me ! {result, started(gen_server:start(?MODULE, {slow, Me}, []))} end),
            receive {init, P} -> exit(P, kill) end, receive {result, R} -> R end end},
      {start_signal_in_init_trapping, fun() -> Me = self(),
            spawn(fun() -> Me ! {result, started(gen_server:start(?MODULE, {slow_ok, Me}, []))}, timer:sleep(500) end),
            receive {init, P} -> exit(P, bad), P ! go end, receive {result, R} -> [R, names(log())] end end},
      {stop_of_dead, fun() -> S = server(false), gen_server:stop(S), try gen_server:stop(S) catch exit:E -> E end end},
      {stop_while_suspended, fun() -> S = server(false), sys:suspend(S), R = gen_server:stop(S, normal, 200), [R, names(log())] end},
      {name_is_free_at_down, fun() -> {ok, S} = gen_server:start({local, kernel_name}, ?MODULE, {log, self(), false}, []), Ref = watch(S), exit(S, kill),
            fate(S, Ref), whereis(kernel_name) =:= undefined end},
      {name_taken, fun() -> {ok, S} = gen_server:start({local, kernel_name2}, ?MODULE, {log, self(), false}, []),
            {error, {already_started, P}} = gen_server:start({local, kernel_name2}, ?MODULE, {log, self(), false}, []), P =:= S end}
     ]]).

started({ok, _}) -> ok;
started({error, R}) -> [error, R];
started(Other) -> Other.

parent_ends(Trap, R) ->
    Log = self(),
    Parent = spawn(fun() -> process_flag(trap_exit, true), {ok, S} = gen_server:start_link(?MODULE, {log, Log, Trap}, []), Log ! {child, S}, receive {finish, W} -> exit(W) end end),
    S = receive {child, X} -> X end, Ref = watch(S), Parent ! {finish, R}, F = fate(S, Ref), [F, names(log())].

trap(true) -> trapping;
trap(false) -> plain.
name(Parts) -> list_to_atom(lists:flatten(lists:join("_", [text(P) || P <- [flat(Q) || Q <- Parts]]))).
flat(L) when is_list(L) -> list_to_atom(L);
flat(X) -> X.
